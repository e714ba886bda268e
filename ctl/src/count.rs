//! Numbers in sentences: thousand separators, singular and plural, sizes in bytes.

/// "3,004".
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 agent", "3,004 agents".
pub fn of(number: i64, singular: &str, plural: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { singular } else { plural })
}

/// "812 B", "4.1 KiB", "2.0 MiB".
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1_024 {
        return format!("{number} B");
    }
    let mut amount = number as f64 / 1_024.0;
    let mut unit = 0;
    while amount >= 1_024.0 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// The parts that are not zero, joined: `2 crit, 1 warn`; `None` when all are.
pub fn parts(parts: &[(i32, &str)]) -> Option<String> {
    let shown: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number != 0)
        .map(|(number, name)| format!("{} {name}", grouped(i64::from(*number))))
        .collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (41_820, "41,820"),
            (1_234_567, "1,234,567"),
            (-1_000, "-1,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn one_is_singular_and_all_else_plural() {
        assert_eq!(of(1, "agent", "agents"), "1 agent");
        assert_eq!(of(0, "agent", "agents"), "0 agents");
        assert_eq!(of(3_004, "agent", "agents"), "3,004 agents");
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(4_200), "4.1 KiB");
        assert_eq!(bytes(2 << 20), "2.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn zero_parts_are_left_out() {
        assert_eq!(
            parts(&[(2, "crit"), (0, "stale"), (1, "warn")]).unwrap(),
            "2 crit, 1 warn"
        );
        assert_eq!(parts(&[(0, "crit")]), None);
    }
}
