//! Everything about a world that must be the same whether or not an agent was ended: read afresh, in words without
//! places, identities and numbers that grow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ha::{Incarnation, Promise, Record, RecordView};
use kubernetes::record::RecordRead;
use kubernetes::slices::SliceState;
use postgres::command::rewind::is_dirty;
use postgres::promise::DurableFile;
use postgres::{Layout, Session};
use serde_json::{Value, json};

use crate::member::Member;
use crate::objects::{CLUSTER, READ_SLICE, WRITE_SLICE};
use crate::world::World;

const BOUND: Duration = Duration::from_secs(2);

/// Reads it all. What cannot be read is said in its place.
pub(crate) async fn read(world: &World) -> Value {
    let promises: BTreeMap<&str, Promise> =
        world.members.iter().filter_map(|it| Some((it.name.as_str(), promise(&it.layout)?))).collect();
    let record = world.record();
    let mut members = serde_json::Map::new();
    for member in &world.members {
        let promise = promises.get(member.name.as_str());
        members.insert(member.name.clone(), of_member(member, promise, record.as_ref()).await);
    }
    let labels: BTreeMap<&str, Value> = world
        .members
        .iter()
        .map(|it| {
            let pod = world.api.get("pods", &it.name).unwrap_or_default();
            (it.name.as_str(), pod["metadata"]["labels"]["role"].clone())
        })
        .collect();
    let whole = json!({
        "record": record.as_ref().map(of_record),
        "pgwrite": slice(world, WRITE_SLICE, record.as_ref()),
        "pgread": slice(world, READ_SLICE, record.as_ref()),
        "labels": labels,
        "status": status(world, record.as_ref()),
        "members": members,
    });
    plain(&whole, world, &promises)
}

/// Line by line what differs.
pub(crate) fn difference(wanted: &Value, found: &Value) -> String {
    let mut lines = Vec::new();
    compare("", wanted, found, &mut lines);
    lines.join("\n")
}

fn compare(at: &str, wanted: &Value, found: &Value, lines: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                compare(&format!("{at}/{key}"), &wanted[key.as_str()], &found[key.as_str()], lines);
            }
        }
        (Value::String(one), Value::String(other)) if wanted != found => {
            let (one, other) = (one.lines().collect(), other.lines().collect());
            let only = |these: &BTreeSet<&str>, those: &BTreeSet<&str>| {
                these.difference(those).copied().collect::<Vec<_>>().join("\n    ")
            };
            lines.push(format!(
                "{at}:\n    {}\n  instead of\n    {}",
                only(&other, &one),
                only(&one, &other)
            ));
        }
        _ if wanted != found => lines.push(format!("{at}: {found} instead of {wanted}")),
        _ => {}
    }
}

fn of_record(record: &Record) -> Value {
    let electorates: Vec<Value> = record
        .electorates
        .iter()
        .map(|it| {
            let members: Vec<&str> = it.members.iter().map(|member| member.name.0.as_str()).collect();
            json!({"leader": it.leader.name, "members": members, "acks": it.acks})
        })
        .collect();
    json!({
        "phase": record.phase,
        "leader": record.leader.as_ref().map(|it| json!({"name": it.name, "stopped": it.stopped})),
        "electorates": electorates,
        "handover": record.handover.is_some(),
        "committed": record.fence_xid.is_some(),
    })
}

fn slice(world: &World, name: &str, record: Option<&Record>) -> Value {
    let Some(there) = world.api.get("endpointslices", name) else { return "none".into() };
    let state = SliceState::of(serde_json::from_value(there).unwrap());
    let leader = record.and_then(|record| record.leader.as_ref());
    json!({
        "endpoints": state.endpoints,
        "of the record's epoch": state.epoch == record.map(|record| record.epoch),
        "by the leader's life": state.boot == leader.map(|leader| leader.boot),
    })
}

fn status(world: &World, record: Option<&Record>) -> Value {
    let status = world.api.get("postgresclusters", CLUSTER).unwrap_or_default()["status"].clone();
    let members: Vec<Value> = status["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| json!({"name": it["name"], "role": it["role"], "state": it["state"], "ready": it["ready"]}))
        .collect();
    json!({
        "master": status["master"],
        "of the record's epoch": status["epoch"].as_u64() == record.map(|record| record.epoch.0),
        "of its timeline": status["timeline"].as_u64() == record.map(|record| u64::from(record.timeline.0)),
        "members": members,
    })
}

async fn of_member(member: &Member, promise: Option<&Promise>, record: Option<&Record>) -> Value {
    if !member.runs() {
        // Whatever it left is the next story's.
        return "gone".into();
    }
    let (Some(promise), Some(record)) = (promise, record) else { return "no promise or no record".into() };
    let leads = record.leader.as_ref().is_some_and(|it| it.name.0 == member.name);
    json!({
        "promise": {
            "bootstrap": promise.bootstrap,
            "planted": promise.planted,
            "rewinding": promise.rewinding,
            "sealed below the next epoch": promise.sealed_below <= record.epoch,
            "epoch": promise.last_epoch == record.epoch,
            "timeline": promise.last_timeline == record.timeline,
            "record": promise.last_record.as_ref() == Some(record),
            "leads by its own word": !leads || promise.led == record.leader,
        },
        "files": files(&member.layout, record),
        "server": server(&member.layout, record).await.unwrap_or_else(|error| format!("{error:#}").into()),
    })
}

/// What lies on the volume: nothing of a step that was not finished.
fn files(layout: &Layout, record: &Record) -> Value {
    let names = |directory: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    // What PostgreSQL itself makes and removes while it runs.
    let passing = ["postmaster.pid", "postmaster.opts", "current_logfiles", "pg_internal.init"];
    let mut data = names(&layout.data());
    data.retain(|name| !passing.contains(&name.as_str()) && !name.starts_with("backup_"));
    let planted: Vec<String> = names(&layout.wal())
        .into_iter()
        .filter_map(|name| name.strip_suffix(".history").map(str::to_owned))
        .filter(|id| u32::from_str_radix(id, 16).is_ok_and(|id| id > record.timeline.0))
        .collect();
    let text = |name: &str| std::fs::read_to_string(layout.data().join(name)).unwrap_or_default();
    json!({
        // A copy that was replaced instead of rewound stays until the user lets it go.
        "volume": names(layout.volume()).into_iter().filter(|it| it != "pgdata.diverged").collect::<Vec<_>>(),
        "state": names(&layout.state()),
        // An agent that is ended in a hand-over may leave a master that has to be rewound: what it then keeps is whole.
        "kept aside, unfinished": names(&layout.diverged()).into_iter().filter(|it| it.starts_with('.')).collect::<Vec<_>>(),
        "data": data,
        "histories above the timeline": planted,
        "dirty": is_dirty(layout),
        "postgresql.conf": text("postgresql.conf"),
        "postgresql.auto.conf": text("postgresql.auto.conf"),
        "pg_hba.conf": text("pg_hba.conf"),
        "pg_ident.conf": text("pg_ident.conf"),
    })
}

async fn server(layout: &Layout, record: &Record) -> anyhow::Result<Value> {
    const ASK: &str = "SELECT pg_is_in_recovery(),
        (SELECT timeline_id FROM pg_control_checkpoint())::int8,
        current_setting('synchronous_standby_names'),
        (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'),
        (SELECT coalesce(max(received_tli), 0)::int8 FROM pg_stat_wal_receiver),
        (SELECT coalesce(string_agg(application_name || ' ' || state, E'\n'), '') FROM pg_stat_replication),
        (SELECT coalesce(string_agg(slot_name || ' ' || active, E'\n'), '') FROM pg_replication_slots
            WHERE NOT temporary),
        (SELECT coalesce(string_agg(rolname, E'\n'), '') FROM pg_roles WHERE rolname !~ '^pg_'),
        (SELECT coalesce(string_agg(datname, E'\n'), '') FROM pg_database),
        (SELECT coalesce(string_agg(name, E'\n'), '') FROM pg_settings WHERE pending_restart),
        (SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL)";
    let session = Session::open(layout, BOUND).await?;
    let row = session.row("read the server's state", ASK, &[]).await?;
    let recovers: bool = row.get(0);
    let timeline = i64::from(record.timeline.0);
    let on: i64 = if recovers { row.get(4) } else { row.get(1) };
    Ok(json!({
        "recovers": recovers,
        "on the record's timeline": on == timeline,
        "names": row.get::<_, String>(2),
        "receives": row.get::<_, i64>(3),
        "sends to": row.get::<_, String>(5),
        // A standby's slots are made by its upkeep, every ten seconds.
        "slots": if recovers { Value::Null } else { row.get::<_, String>(6).into() },
        "roles": row.get::<_, String>(7),
        "databases": row.get::<_, String>(8),
        "waits for a restart": row.get::<_, String>(9),
        "errors in files": row.get::<_, i64>(10),
    }))
}

fn promise(layout: &Layout) -> Option<Promise> {
    DurableFile::<Promise>::new(layout.promise()).load().ok().flatten()
}

/// The record in the Lease.
pub(crate) fn record(lease: Value) -> Option<Record> {
    match RecordRead::of(serde_json::from_value(lease).ok()?).view(ha::Instant(0), ha::Instant(0)) {
        RecordView::Known { record, .. } => Some(*record),
        _ => None,
    }
}

/// Places and identities by the names of the members.
fn plain(value: &Value, world: &World, promises: &BTreeMap<&str, Promise>) -> Value {
    let mut text = value.to_string();
    for member in &world.members {
        if let Some(promise) = promises.get(member.name.as_str()) {
            let Incarnation(number) = promise.incarnation;
            text = text.replace(&format!("m_{number:016x}"), &format!("<{}>", member.name));
        }
        text = text.replace(&member.address.to_string(), &format!("<address of {}>", member.name));
    }
    text = text.replace(&world.root().display().to_string(), "<world>");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    // What is made for a member that is gone depends on whether it was heard since the agent's start, which is no matter:
    // it is made again when the member is back.
    let gone: Vec<String> =
        world.members.iter().filter(|it| !it.runs()).map(|it| format!("<{}>", it.name)).collect();
    sort_lines(&mut value, &gone);
    value
}

/// Lists of members in the order of their names, not of their incarnations.
fn sort_lines(value: &mut Value, gone: &[String]) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|it| sort_lines(it, gone)),
        Value::String(text) => {
            let mut lines: Vec<&str> =
                text.lines().filter(|line| !gone.iter().any(|name| line.contains(name.as_str()))).collect();
            lines.sort_unstable();
            *text = lines.join("\n");
        }
        _ => {}
    }
}
