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

            fresh
                .batch("role", "CREATE ROLE fast; ALTER ROLE fast SET synchronous_commit = off")
                .await
                .unwrap();
            assert_eq!(parameters::lowered_synchronous_commit(&fresh).await.unwrap(), ["fast"]);
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
