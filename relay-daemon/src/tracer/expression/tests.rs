use super::*;

#[test]
fn renders() {
    println!("{}", Expression::parse("next_prio < && x").unwrap_err().render());
}
