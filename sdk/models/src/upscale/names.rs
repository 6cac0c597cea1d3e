//! The names that programs have given the tensors of an upscaler, to those of BasicSR.

use std::collections::BTreeMap;

/// What may stand in front of all names of a file.
const ROOTS: [&str; 6] = ["", "params_ema.", "params.", "state_dict.", "module.", "netG."];

/// A way of naming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// BasicSR and Real-ESRGAN: `body.0.rdb1.conv1.weight`.
    Basic,
    /// The first release of ESRGAN, BSRGAN: `RRDB_trunk.0.RDB1.conv1.weight`.
    Trunk,
    /// ESRGAN's training program, a module of modules: `model.1.sub.0.RDB1.conv1.0.weight`.
    Nested,
    /// SRVGGNetCompact: `body.0.weight`.
    Compact,
}

/// Finds the layout of `names` and what stands in front of them.
pub(super) fn layout(names: &[&str]) -> Option<(Layout, &'static str)> {
    let has = |root: &str, name: &str| names.iter().any(|n| n.strip_prefix(root) == Some(name));
    let of = |root: &str| {
        let signs = [
            (Layout::Basic, "body.0.rdb1.conv1.weight"),
            (Layout::Trunk, "RRDB_trunk.0.RDB1.conv1.weight"),
            (Layout::Nested, "model.1.sub.0.RDB1.conv1.0.weight"),
            (Layout::Compact, "body.0.weight"),
        ];
        signs.into_iter().find(|(_, sign)| has(root, sign)).map(|(layout, _)| layout)
    };
    ROOTS.into_iter().find_map(|root| Some((of(root)?, root)))
}

/// The names of BasicSR, each with that in the file.
pub(super) fn renamed(layout: Layout, root: &str, names: &[&str]) -> BTreeMap<String, String> {
    let ends = if layout == Layout::Nested { nested_ends(root, names) } else { BTreeMap::new() };
    let new = |name: &str| match layout {
        Layout::Basic | Layout::Compact => Some(name.to_string()),
        Layout::Trunk => Some(trunk(name)),
        Layout::Nested => nested(name, &ends),
    };
    let pairs =
        names.iter().filter_map(|stored| Some((new(stored.strip_prefix(root)?)?, stored.to_string())));
    pairs.collect()
}

fn trunk(name: &str) -> String {
    const WORDS: [(&str, &str); 5] = [
        ("RRDB_trunk.", "body."),
        (".RDB", ".rdb"),
        ("trunk_conv.", "conv_body."),
        ("HRconv.", "conv_hr."),
        ("upconv", "conv_up"),
    ];
    WORDS.iter().fold(name.to_string(), |name, (old, new)| name.replace(old, new))
}

/// `model.N` beyond the blocks, in order: a convolution for each doubling, and the last two. Between them are numbers of
/// modules without tensors.
fn nested_ends(root: &str, names: &[&str]) -> BTreeMap<usize, String> {
    let number = |name: &&str| {
        let rest = name.strip_prefix(root)?.strip_prefix("model.")?.strip_suffix(".weight")?;
        rest.parse::<usize>().ok().filter(|n| *n > 1)
    };
    let numbers: std::collections::BTreeSet<usize> = names.iter().filter_map(number).collect();
    let count = numbers.len();
    let name = |i: usize| match count - i {
        1 => "conv_last".into(),
        2 => "conv_hr".into(),
        _ => format!("conv_up{}", i + 1),
    };
    numbers.into_iter().enumerate().map(|(i, n)| (n, name(i))).collect()
}

fn nested(name: &str, ends: &BTreeMap<usize, String>) -> Option<String> {
    let rest = name.strip_prefix("model.")?;
    if let Some(kind) = rest.strip_prefix("0.") {
        return Some(format!("conv_first.{kind}"));
    }
    let Some(inner) = rest.strip_prefix("1.sub.") else {
        let (number, kind) = rest.split_once('.')?;
        return Some(format!("{}.{kind}", ends.get(&number.parse().ok()?)?));
    };
    match inner.split('.').collect::<Vec<_>>()[..] {
        [block, dense, conv, "0", kind] => {
            Some(format!("body.{block}.rdb{}.{conv}.{kind}", dense.strip_prefix("RDB")?))
        }
        // The convolution after the blocks counts as one of them.
        [_, kind] => Some(format!("conv_body.{kind}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_of(names: &[&str]) -> Vec<String> {
        let (layout, root) = layout(names).unwrap();
        let map = renamed(layout, root, names);
        names.iter().filter_map(|n| map.iter().find(|(_, v)| v == n).map(|(k, _)| k.clone())).collect()
    }

    #[test]
    fn names_of_every_program_become_those_of_one() {
        let basic = ["body.0.rdb1.conv1.weight", "conv_body.bias", "conv_up1.weight", "conv_hr.weight"];
        assert_eq!(new_of(&basic), basic);
        let trunk = ["RRDB_trunk.0.RDB1.conv1.weight", "trunk_conv.bias", "upconv1.weight", "HRconv.weight"];
        assert_eq!(new_of(&trunk), basic);
        let nested = [
            "model.1.sub.0.RDB1.conv1.0.weight",
            "model.1.sub.23.bias",
            "model.3.weight",
            "model.8.weight",
            "model.0.bias",
            "model.6.weight",
            "model.10.weight",
            "model.10.bias",
        ];
        assert_eq!(
            new_of(&nested),
            [&basic[..], &["conv_first.bias", "conv_up2.weight", "conv_last.weight", "conv_last.bias"]]
                .concat()
        );
        let rooted = ["params_ema.body.0.rdb1.conv1.weight", "params.body.0.rdb1.conv1.weight"];
        assert_eq!(layout(&rooted), Some((Layout::Basic, "params_ema.")));
        assert_eq!(new_of(&rooted), [basic[0]]);
        assert_eq!(layout(&["body.0.weight"]), Some((Layout::Compact, "")));
        assert_eq!(layout(&["layers.0.weight"]), None);
    }
}
