//! P21, P25: a closed gate is closed for everybody, those included who were half-way in.

use std::time::Duration;

use crate::common::{BOUND, Member, run};
use postgres::gate;
use postgres::settings::Access;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn tcp(member: &Member) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(member.layout.port())
        .user("postgres")
        .password("secret")
        .connect(tokio_postgres::NoTls)
        .await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

#[test]
fn p21_sessions_of_a_standby_end_before_it_could_let_them_write() {
    run(module_path!(), "p21_sessions_of_a_standby_end_before_it_could_let_them_write", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let session = one.session().await;
            postgres::roles::ensure_superuser_password(&session, "secret").await.unwrap();
            let mut two = Member::standby_of(&mut one, 2).await;
            let over_socket = two.client().await;
            let over_tcp = tcp(&two).await.unwrap();
            over_tcp.batch_execute("BEGIN; SELECT 1").await.unwrap();
            // Connected, and silent so far.
            let mut silent = tokio::net::TcpStream::connect(("127.0.0.1", two.layout.port())).await.unwrap();
            // Half-way in: its hba line is chosen, its password not sent yet.
            let mut half = tokio::net::TcpStream::connect(("127.0.0.1", two.layout.port())).await.unwrap();
            let mut startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0".to_vec();
            let length = u32::try_from(startup.len() + 4).unwrap();
            startup.splice(0..0, length.to_be_bytes());
            half.write_all(&startup).await.unwrap();
            let mut first = [0; 1];
            half.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"R", "asked for a password");
            let starting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'starting'";
            let listed = two.session().await.value::<i64>("look", starting, &[]).await.unwrap() > 0;
            assert_eq!(listed, postgres::facts::lists_authenticating_clients(lab.binaries.major()));

            two.settings.hba = two.settings.hba.with_access(Access::Closed);
            let session = two.session().await;
            gate::close(&two.layout, &session, &two.settings, BOUND).await.unwrap();
            assert!(over_socket.batch_execute("SELECT 1").await.is_err());
            assert!(over_tcp.batch_execute("SELECT 1").await.is_err());
            for early in [&mut half, &mut silent] {
                let mut rest = Vec::new();
                let ended = tokio::time::timeout(Duration::from_secs(5), early.read_to_end(&mut rest)).await;
                assert!(ended.is_ok(), "an early client is still connected");
            }
            let refused = tcp(&two).await.expect_err("refused");
            assert_eq!(refused.code().unwrap().code(), "28000", "P25");
            // Replication goes on through the gate.
            two.wait_streaming().await;
            one.session().await.batch("write", "CREATE TABLE public.t AS SELECT 1 AS x").await.unwrap();
            two.wait_replayed(one.flushed().await).await;

            two.settings.hba = two.settings.hba.with_access(Access::Open);
            gate::open(&two.layout, &session, &two.settings, BOUND).await.unwrap();
            tcp(&two).await.expect("admitted again").batch_execute("SELECT 1").await.unwrap();
        })
    });
}

#[test]
fn a_broken_hba_file_is_no_closed_gate() {
    run(module_path!(), "a_broken_hba_file_is_no_closed_gate", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let session = one.session().await;
            let line = postgres::settings::HbaLine::new("host all all 10.0.0.0/99 md5").unwrap();
            one.settings.hba.user_lines = vec![line];
            let error = gate::admit_members(&one.layout, &session, &one.settings, BOUND).await.unwrap_err();
            assert!(matches!(&error, gate::GateError::Reload(_)), "{error:?}");
            assert!(format!("{error:?}").contains("pg_hba.conf line"), "{error:?}");
        })
    });
}
