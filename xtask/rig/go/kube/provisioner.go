package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	provisionerName = "rig.test/local-path"
	selectedNode    = "volume.kubernetes.io/selected-node"
	provisionedBy   = "pv.kubernetes.io/provisioned-by"
)

// A provisioner of node-local volumes. It runs beside the control plane of a rig whose nodes share one machine,
// so it makes and removes each directory itself, where a provisioner for real nodes starts a pod for that. The
// volumes are of type "local", to which the kubelet applies fsGroup, and pinned to their node.
type provisioner struct {
	client kubernetes.Interface
	// Directory of the rig: a volume of node N lies in STATE/N/volumes/NAME here ...
	state string
	// ... and in MOUNTED/NAME as the node itself sees it.
	mounted string
	claims  cache.Store
	volumes cache.Store
	classes cache.Store
	queue   workqueue.TypedRateLimitingInterface[string]
}

func newProvisionerCommand() *cobra.Command {
	var kubeconfig string
	p := &provisioner{}
	command := &cobra.Command{Use: "rig-provisioner", SilenceUsage: true, RunE: func(cmd *cobra.Command, _ []string) error {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		if p.client, err = kubernetes.NewForConfig(config); err != nil {
			return err
		}
		return p.run(context.Background())
	}}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&p.state, "state", "", "directory of the rig")
	command.Flags().StringVar(&p.mounted, "mounted", "", "where a node sees its volumes")
	return command
}

func (p *provisioner) run(ctx context.Context) error {
	p.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 5*time.Second))
	factory := informers.NewSharedInformerFactory(p.client, 10*time.Minute)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	classes := factory.Storage().V1().StorageClasses().Informer()
	p.claims, p.volumes, p.classes = claims.GetStore(), volumes.GetStore(), classes.GetStore()
	for prefix, informer := range map[string]cache.SharedIndexInformer{"claim:": claims, "volume:": volumes} {
		enqueue := func(object interface{}) {
			if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
				p.queue.Add(prefix + key)
			}
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, object interface{}) { enqueue(object) }}); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	klog.InfoS("watching for claims")
	for {
		item, stopped := p.queue.Get()
		if stopped {
			return nil
		}
		if err := p.handle(ctx, item); err != nil {
			klog.ErrorS(err, "will try again", "item", item)
			p.queue.AddRateLimited(item)
		} else {
			p.queue.Forget(item)
		}
		p.queue.Done(item)
	}
}

func (p *provisioner) handle(ctx context.Context, item string) error {
	if key, ok := cutPrefix(item, "claim:"); ok {
		if object, found, err := p.claims.GetByKey(key); err != nil || !found {
			return err
		} else {
			return p.provision(ctx, object.(*corev1.PersistentVolumeClaim))
		}
	}
	if key, ok := cutPrefix(item, "volume:"); ok {
		if object, found, err := p.volumes.GetByKey(key); err != nil || !found {
			return err
		} else {
			return p.reclaim(ctx, object.(*corev1.PersistentVolume))
		}
	}
	return nil
}

// provision makes the volume of a claim that waits for one on a chosen node. The name is the claim's UID, so
// doing it twice makes one volume.
func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.Status.Phase == corev1.ClaimBound || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	object, found, err := p.classes.GetByKey(*claim.Spec.StorageClassName)
	if err != nil || !found {
		return err
	}
	class := object.(*storagev1.StorageClass)
	node := claim.Annotations[selectedNode]
	if class.Provisioner != provisionerName || node == "" || filepath.Base(node) != node {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	size, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		size = resource.MustParse("1Gi")
	}
	if _, err := os.Stat(filepath.Join(p.state, node)); err != nil {
		return fmt.Errorf("no such node: %w", err)
	}
	directory := filepath.Join(p.state, node, "volumes", name)
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return err
	}
	// Usable by any user even without an fsGroup; MkdirAll's mode is cut by the umask.
	if err := os.Chmod(directory, 0o777); err != nil {
		return err
	}
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	filesystem := corev1.PersistentVolumeFilesystem
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: size},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName:              class.Name,
			VolumeMode:                    &filesystem,
			ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: filepath.Join(p.mounted, name)}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		klog.InfoS("made a volume", "volume", name, "claim", claim.Namespace+"/"+claim.Name, "node", node)
	}
	return err
}

// reclaim removes a released volume of ours with what it holds, directory first: a volume object without a
// directory is tried again, a directory without an object would stay for ever.
func (p *provisioner) reclaim(ctx context.Context, volume *corev1.PersistentVolume) error {
	if volume.Annotations[provisionedBy] != provisionerName || volume.Status.Phase != corev1.VolumeReleased || volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return nil
	}
	matches, err := filepath.Glob(filepath.Join(p.state, "*", "volumes", volume.Name))
	if err != nil {
		return err
	}
	for _, directory := range matches {
		if err := os.RemoveAll(directory); err != nil {
			return err
		}
	}
	uid := volume.UID
	err = p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		klog.InfoS("removed a volume", "volume", volume.Name)
	}
	return err
}

func cutPrefix(text, prefix string) (string, bool) {
	if len(text) >= len(prefix) && text[:len(prefix)] == prefix {
		return text[len(prefix):], true
	}
	return text, false
}
