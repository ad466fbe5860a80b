//! The table that containers of all stores share, and its elements, in the kernel's own.

use super::firewall::TABLE;
use super::testing::{in_new_host, ip, run};
use super::tests::{Container, Store, ask};

/// Protocols as numbers: nft has their names from /etc/protocols, which small systems lack.
fn rules() -> String {
    run("nft --numeric-protocol list ruleset")
}

fn answers(port: u16) -> bool {
    ask(([127, 0, 0, 1], port).into()).is_some()
}

#[test]
#[ignore = "needs root"]
fn another_store_keeps_its_rules_when_the_last_container_of_one_goes() {
    in_new_host(|| {
        let (one, other) = (Store::new(), Store::new());
        let a = one.start("a", &["bridge=one,publish=8080:80"]);
        let b = other.start("b", &["bridge=two,publish=8081:80"]);
        b.serve(80);
        a.delete();
        assert!(answers(8081));
        let left = rules();
        assert!(left.contains("\"two\"") && !left.contains("\"one\"") && !left.contains("8080"), "{left}");
        b.delete();
        assert_eq!(rules(), "");
    });
}

#[test]
#[ignore = "needs root"]
fn a_port_of_another_store_is_refused_and_stays() {
    in_new_host(|| {
        let (one, other) = (Store::new(), Store::new());
        let a = one.start("a", &["bridge=one,publish=8080:80"]);
        a.serve(80);
        let error = other.refused("b", &["bridge=two,publish=8080:80"], "a published port is taken");
        assert_eq!(error.config_path(), Some("annotations[org.onggi.network.eth0]"));
        assert!(answers(8080));
        a.delete();
        assert_eq!(rules(), "");
    });
}

#[test]
#[ignore = "needs root"]
fn a_kept_bridge_keeps_its_rules() {
    in_new_host(|| {
        let store = Store::new();
        store.start("a", &["bridge=one,keep=yes"]).delete();
        store.start("b", &["bridge=two"]).delete();
        assert!(rules().contains("\"one\""));
        store.start("c", &["bridge=one"]).delete();
        store.refused("d", &["bridge=one,internal=yes"], "is not internal");
        assert!(rules().contains("\"one\""));
        store.start("e", &["bridge=one,keep=no"]).delete();
        assert_eq!((rules(), ip("-o link").lines().count()), (String::new(), 1));
    });
}

/// `systemctl restart nftables` does that.
#[test]
#[ignore = "needs root"]
fn rules_that_were_flushed_come_back_with_the_next_container() {
    in_new_host(|| {
        let (store, other) = (Store::new(), Store::new());
        let a = store.start("a", &["bridge=one,publish=8080:80", "bridge=two,internal=yes"]);
        let b = other.start("b", &["bridge=three"]);
        a.serve(80);
        let before = rules();
        run("nft flush ruleset");
        assert!(!answers(8080));
        store.start("c", &["bridge=one"]).delete();
        assert!(answers(8080));
        let elements = |text: &str| text.matches(['"', '.']).count();
        assert_eq!(elements(&rules()) + elements(r#""three" "three" . "three" "three""#), elements(&before));
        run("nft flush ruleset");
        a.delete();
        b.delete();
        assert_eq!(rules(), "");
    });
}

#[test]
#[ignore = "needs root"]
fn hundreds_of_ports_come_and_go() {
    in_new_host(|| {
        let store = Store::new();
        let holder = store.start("a", &["bridge=one"]);
        let many = store.start("b", &["bridge=one,address6=auto,publish=20000-20599:100-699"]);
        assert_eq!(rules().matches(" 6 . 20").count(), 2 * 600);
        many.serve(699);
        assert!(answers(20599));
        many.delete();
        assert!(!rules().contains(" 6 . 20"));
        holder.delete();
    });
}

#[test]
#[ignore = "needs root"]
fn a_port_can_be_published_again_at_once() {
    in_new_host(|| {
        let store = Store::new();
        let holder = store.start("holder", &["bridge=one"]);
        for round in 0..50 {
            let next = store.start(&format!("c{round}"), &["bridge=one,publish=8080:80"]);
            next.serve(80);
            assert!(answers(8080), "round {round}: {}\n{}", rules(), ip("neighbour"));
            next.delete();
            assert!(!answers(8080), "round {round}");
        }
        holder.delete();
    });
}

/// As it is on kernels before 6.12, where to add an element again does not change its end, and as it
/// was made by earlier versions.
#[test]
#[ignore = "needs root"]
fn elements_that_do_not_expire_are_deleted() {
    in_new_host(|| {
        let text = TABLE.replace(" flags timeout;", "");
        assert_ne!(text, TABLE);
        let file = std::env::temp_dir().join(format!("onggi-table-{}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        run(&format!("nft -f {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let store = Store::new();
        let holder = store.start("holder", &["bridge=one"]);
        let (a, b): (Container, Container) = (
            store.start("a", &["bridge=two,publish=8080:80", "bridge=two,address6=auto"]),
            store.start("b", &["bridge=one,publish=8081:80"]),
        );
        b.serve(80);
        a.delete();
        assert!(answers(8081) && !rules().contains("8080") && !rules().contains("\"two\""));
        b.delete();
        holder.delete();
        assert_eq!(rules(), "");
    });
}
