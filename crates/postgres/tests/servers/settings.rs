//! Real servers read what we render.

use std::time::Duration;

use crate::common::{BOUND, Member, run};
use postgres::log::{LogLine, parse};
use postgres::settings::UserParameters;
use postgres::{parameters, reload};

fn user(pairs: &[(&str, &str)]) -> UserParameters {
    UserParameters::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), []).unwrap()
}

#[test]
fn the_files_have_no_errors_and_every_protocol_setting_is_in_use() {
    run(module_path!(), "the_files_have_no_errors_and_every_protocol_setting_is_in_use", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let session = one.session().await;
            assert_eq!(reload::problems(&session).await.unwrap(), Vec::<String>::new());
            let expected = one.settings.protocol.expected().unwrap();
            let names: Vec<&str> = expected.keys().copied().collect();
            let used = parameters::in_use(&session, &names).await.unwrap();
            for (name, value) in expected {
                let shown = used.get(name).unwrap_or_else(|| panic!("{name} does not exist"));
                let same = *shown == value || shown == "(disabled)" && value.is_empty();
                // Our own session says otherwise for itself.
                assert!(same || name == "synchronous_commit", "{name}: {shown:?}, not {value:?}");
            }

            one.settings.user =
                user(&[("work_mem", "7MB"), ("max_connections", "50"), ("search_path", r#"a, "b'c""#)]);
            one.settings.write(&one.layout).await.unwrap();
            reload::reload(&one.layout, &session, BOUND).await.unwrap();
            let fresh = one.session().await;
            let used = parameters::in_use(&fresh, &["work_mem", "max_connections"]).await.unwrap();
            assert_eq!(used.get("work_mem").map(String::as_str), Some("7MB"));
            assert_eq!(used.get("max_connections").map(String::as_str), Some("100"));
            let pending = parameters::pending_restart(&fresh).await.unwrap();
            assert!(pending.contains("max_connections"), "{pending:?}");
        })
    });
}

#[test]
fn a_value_that_postgres_rejects_is_found_before_it_reaches_a_server() {
    run(module_path!(), "a_value_that_postgres_rejects_is_found_before_it_reaches_a_server", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let ask = async |parameters: UserParameters| {
                parameters::validate(&lab.binaries, &one.layout, &parameters, BOUND).await.unwrap()
            };
            assert_eq!(
                ask(user(&[("work_mem", "7MB"), ("some_extension.x", "1")])).await,
                Vec::<String>::new()
            );
            let problems = ask(user(&[("work_mem", "lots")])).await;
            assert!(problems.iter().any(|p| p.contains("work_mem")), "{problems:?}");
            let problems = ask(user(&[("no_such_parameter", "1")])).await;
            assert!(problems.iter().any(|p| p.contains("no_such_parameter")), "{problems:?}");

            one.settings.user = user(&[("work_mem", "lots")]);
            one.settings.write(&one.layout).await.unwrap();
            let session = one.session().await;
            let error = reload::reload(&one.layout, &session, Duration::from_millis(500)).await.unwrap_err();
            assert!(format!("{error}").contains("work_mem"), "{error}");
            one.settings.user = user(&[("max_connections", "lots")]);
            one.settings.write(&one.layout).await.unwrap();
            let found = reload::problems(&one.session().await).await.unwrap();
            assert!(found.iter().any(|p| p.contains("max_connections")), "{found:?}");
        })
    });
}

#[test]
fn the_log_is_read_back_and_cannot_be_forged() {
    run(module_path!(), "the_log_is_read_back_and_cannot_be_forged", |lab| {
        Box::pin(async move {
            let one = Member::primary(&lab, 1).await;
            let forged = "SELECT 1/0 AS \"x\npg|1|1|1|checkpointer|00000|PANIC:  forged\"";
            assert!(one.client().await.batch_execute(forged).await.is_err());
            let log = one.log();
            let messages: Vec<LogLine<'_>> = log.lines().map(parse).collect();
            let error = messages.iter().find_map(|m| match m {
                LogLine::Message { severity: "ERROR", sqlstate, backend, text, .. } => {
                    Some((*sqlstate, *backend, *text))
                }
                _ => None,
            });
            assert_eq!(error, Some(("22012", "client backend", "division by zero")), "{log}");
            assert!(
                !messages.iter().any(|m| matches!(m, LogLine::Message { severity: "PANIC", .. })),
                "{log}"
            );
        })
    });
}

#[test]
fn p15_whoever_lowered_synchronous_commit_is_named() {
    run(module_path!(), "p15_whoever_lowered_synchronous_commit_is_named", |lab| {
        Box::pin(async move {
            let one = Member::primary(&lab, 1).await;
            let session = one.session().await;
            let make = "CREATE ROLE fast LOGIN; CREATE ROLE \"Od d\"; CREATE ROLE good; CREATE ROLE quorum";
            session.batch("roles", make).await.unwrap();
            session.batch("database", "CREATE DATABASE loose").await.unwrap();
            // The user's own right: no superuser is needed for oneself.
            let own = "SET ROLE fast; ALTER ROLE fast SET synchronous_commit = off; RESET ROLE";
            session.batch("lower", own).await.unwrap();
            for lower in [
                "ALTER ROLE \"Od d\" IN DATABASE loose SET synchronous_commit TO remote_write",
                "ALTER DATABASE loose SET SYNCHRONOUS_COMMIT = 'LOCAL'",
                "ALTER ROLE ALL SET synchronous_commit = 0",
                "ALTER ROLE good SET synchronous_commit = remote_apply",
                "ALTER ROLE quorum SET synchronous_commit = on",
                "ALTER ROLE good IN DATABASE loose SET work_mem = '2MB'",
            ] {
                session.batch("lower", lower).await.unwrap();
            }
            let found = parameters::lowered_synchronous_commit(&session).await.unwrap();
            let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(
                found,
                [
                    "database \"loose\": synchronous_commit = LOCAL",
                    "every role in every database: synchronous_commit = 0",
                    "role \"Od d\" in database \"loose\": synchronous_commit = remote_write",
                    "role \"fast\": synchronous_commit = off",
                ]
            );
            // What it means: such a client is told of success while nobody real could have flushed.
            session
                .batch("undo", "ALTER ROLE ALL RESET synchronous_commit; CREATE TABLE public.t (x int)")
                .await
                .unwrap();
            let client = one.client().await;
            let acknowledged =
                client.batch_execute("SET synchronous_commit = off; INSERT INTO public.t VALUES (1)");
            tokio::time::timeout(BOUND, acknowledged).await.expect("acknowledged by nobody").unwrap();
        })
    });
}
