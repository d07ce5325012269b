//! Roles, passwords and the first database.

use std::collections::BTreeSet;

use crate::common::{Member, run};
use postgres::roles::{self, Application, RolesError};

#[test]
fn everything_is_made_once_and_the_password_works() {
    run(module_path!(), "everything_is_made_once_and_the_password_works", |lab| {
        Box::pin(async move {
            let one = Member::primary(&lab, 1).await;
            let session = one.session().await;
            let application =
                Application { owner: r#"Ow"ner; --"#.to_owned(), database: "my db'\\".to_owned() };
            let password = "pä'ss\\word";
            assert!(roles::ensure_application(&session, &application, password).await.unwrap());
            assert!(!roles::ensure_application(&session, &application, password).await.unwrap());
            let login = |password: &'static str| {
                let mut config = tokio_postgres::Config::new();
                config.host("127.0.0.1").port(one.layout.port());
                config.user(&application.owner).dbname(&application.database).password(password);
                async move {
                    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
                    tokio::spawn(async move {
                        let _ = connection.await;
                    });
                    // Commits wait for nobody real here.
                    client.batch_execute("SET synchronous_commit = local; CREATE TABLE t (x int)").await
                }
            };
            login(password).await.unwrap();
            assert!(login("wrong").await.is_err());
            assert!(roles::ensure_application(&session, &application, "other").await.unwrap());
            assert!(login(password).await.is_err());

            for name in ["postgres", "pg_x", "matriarch_replication", "m_00000000000000ab"] {
                let theirs = Application { owner: name.to_owned(), database: "app".to_owned() };
                let result = roles::ensure_application(&session, &theirs, "x").await;
                assert!(matches!(result, Err(RolesError::Reserved(_))), "{name}: {result:?}");
            }

            let members = BTreeSet::from([ha::Incarnation(1), ha::Incarnation(2)]);
            roles::ensure_member_group(&session).await.unwrap();
            assert_eq!(roles::ensure_member_roles(&session, &members).await.unwrap(), members);
            assert!(roles::ensure_member_roles(&session, &members).await.unwrap().is_empty());
            assert_eq!(roles::member_roles(&session).await.unwrap(), members);
            roles::drop_member_role(&session, ha::Incarnation(1)).await.unwrap();
            assert_eq!(roles::member_roles(&session).await.unwrap().len(), 1);
            let super_rights =
                "SELECT count(*) FROM pg_roles WHERE rolname ~ '^m_' AND (rolsuper OR rolcreaterole)";
            assert_eq!(session.value::<i64>("count", super_rights, &[]).await.unwrap(), 0);
            let log = one.log();
            assert!(!log.contains("pä'ss") && !log.contains("SCRAM"), "{log}");
        })
    });
}
