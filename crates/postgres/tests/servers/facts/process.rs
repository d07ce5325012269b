//! P7, P24–P26: processes, signal files and what a start needs.

use std::process::Command;
use std::time::Duration;

use crate::common::{BOUND, Member, each_major, is_alive};
use ha::{Names, Timeline};
use postgres::history::{History, file_name};
use postgres::server::Observation;
use postgres::{follow, parameters, reload};
use rustix::process::Signal;

each_major!(p07_a_backend_outlives_its_killed_postmaster_and_acknowledges, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    one.set_names(Names::Alone).await;
    one.make_table().await;
    let client = one.client().await;
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    // Busy, so that it does not look for its postmaster.
    let busy = "DO $$ DECLARE until timestamptz := clock_timestamp() + interval '1500 ms'; BEGIN
        WHILE clock_timestamp() < until LOOP NULL; END LOOP; INSERT INTO public.t VALUES (1); END $$";
    let work = tokio::spawn(async move { client.batch_execute(busy).await });
    let running = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
    let session = one.session().await;
    while session.value::<i64>("look", running, &[&backend]).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let postmaster = postgres::server::postmaster_pid(&one.layout).unwrap();
    crate::common::send(postmaster, Signal::KILL);
    assert!(one.ends_within(BOUND).await);
    assert!(!is_alive(postmaster) && is_alive(backend), "the backend died with its postmaster");
    assert!(matches!(one.observe().await, Observation::NotListening));
    let answer = tokio::time::timeout(BOUND, work).await.expect("an answer").unwrap();
    assert!(answer.is_ok(), "acknowledged without a postmaster: {answer:?}");
    while is_alive(backend) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    one.start_primary().await;
    assert_eq!(one.count("t").await, 1);
});

each_major!(p24_without_its_signal_file_a_half_promoted_standby_writes_on_the_old_timeline, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let mut two = Member::standby_of(&mut one, 2).await;
    let end = two.seal().await;
    two.kill().await;
    // A promotion that ended between the removal of the signal file and the first record of its timeline.
    let history = History::first().child(Timeline(2), end.lsn);
    let file = two.layout.wal().join(file_name(Timeline(2)));
    std::fs::write(&file, history.render()).unwrap();
    std::fs::remove_file(two.layout.standby_signal()).unwrap();
    two.start_primary().await;
    let Observation::Primary(seen) = two.observe().await else { panic!("no master") };
    assert_eq!(seen.timeline, Timeline(1), "writable on a timeline that is somebody else's by now");
    two.kill().await;
    // Ours: the signal file is made before every start without a fresh authority.
    std::fs::remove_file(&file).unwrap();
    follow::make_standby(&two.layout).await.unwrap();
    two.start_standby(None).await;
    assert!(matches!(two.observe().await, Observation::Standby(_)));
});

each_major!(p25_addresses_wait_for_a_restart_and_access_for_a_reload_only, async |lab| {
    let mut one = Member::primary(&lab, 1).await;
    let session = one.session().await;
    postgres::roles::ensure_superuser_password(&session, "secret").await.unwrap();
    let login = || {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(one.layout.port()).user("postgres").password("secret");
        async move { config.connect(tokio_postgres::NoTls).await.map(drop) }
    };
    login().await.unwrap();
    let mut changed = one.settings.clone();
    "127.0.0.2".clone_into(&mut changed.protocol.listen_addresses);
    changed.hba = changed.hba.with_access(postgres::settings::Access::Closed);
    changed.write(&one.layout).await.unwrap();
    reload::reload(&one.layout, &session, BOUND).await.unwrap();
    let pending = parameters::pending_restart(&one.session().await).await.unwrap();
    assert!(pending.contains("listen_addresses"), "{pending:?}");
    // It listens where it did, and refuses as the new file says.
    let refused = login().await.expect_err("refused");
    assert_eq!(refused.code().unwrap().code(), "28000");
    one.settings = changed;
    one.kill().await;
    one.start_primary().await;
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", one.layout.port())).await;
    assert!(refused.is_err(), "it still listens there");
    tokio::net::TcpStream::connect(("127.0.0.2", one.layout.port())).await.unwrap();
});

each_major!(p26_initdb_and_libpq_fail_for_a_uid_without_a_passwd_entry, async |lab| {
    let directory = lab.path().join("nobody");
    let as_nobody = |program: &str, arguments: &[&str]| {
        // A user namespace gives this process a number that /etc/passwd does not have.
        let output = Command::new("unshare")
            .args(["--user", "--map-user=4242", "--map-group=4242", "--"])
            .arg(lab.binaries.program(program))
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let data = directory.to_string_lossy().into_owned();
    let said = as_nobody("initdb", &["-D", &data]);
    assert!(said.contains("could not look up effective user ID 4242"), "{said}");
    assert!(!directory.exists());
    let clone = |info: &str| as_nobody("pg_basebackup", &["--pgdata", &data, "--dbname", info]);
    let said = clone("host=/nowhere");
    assert!(said.contains("local user with ID 4242 does not exist"), "{said}");
    // Every connection string of ours names its user.
    let said = clone("host=/nowhere user=x");
    assert!(said.contains("/nowhere") && !said.contains("4242"), "{said}");
});
