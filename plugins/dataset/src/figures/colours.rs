//! What the names of colours look like, for swatches.

use super::Colour;

const NAMED: [(&str, Colour); 58] = [
    ("black", [20, 20, 20]),
    ("white", [255, 255, 255]),
    ("off white", [248, 246, 235]),
    ("grey", [140, 140, 140]),
    ("gray", [140, 140, 140]),
    ("grey melange", [165, 165, 168]),
    ("charcoal", [62, 66, 71]),
    ("silver", [196, 200, 204]),
    ("steel", [120, 134, 145]),
    ("metallic", [150, 152, 158]),
    ("gunmetal", [70, 76, 84]),
    ("blue", [43, 96, 185]),
    ("navy blue", [26, 38, 84]),
    ("navy", [26, 38, 84]),
    ("turquoise blue", [38, 183, 190]),
    ("teal", [0, 118, 122]),
    ("sea green", [58, 158, 120]),
    ("green", [52, 135, 62]),
    ("fluorescent green", [110, 240, 30]),
    ("lime green", [140, 205, 45]),
    ("olive", [107, 112, 44]),
    ("khaki", [176, 160, 112]),
    ("brown", [112, 70, 42]),
    ("coffee brown", [78, 52, 38]),
    ("mushroom brown", [160, 134, 116]),
    ("tan", [196, 148, 98]),
    ("camel", [190, 140, 86]),
    ("beige", [224, 206, 174]),
    ("cream", [250, 240, 206]),
    ("nude", [232, 200, 178]),
    ("skin", [234, 196, 168]),
    ("taupe", [139, 124, 110]),
    ("copper", [184, 110, 58]),
    ("bronze", [146, 108, 52]),
    ("rust", [168, 74, 34]),
    ("gold", [206, 168, 58]),
    ("mustard", [216, 168, 32]),
    ("yellow", [246, 214, 44]),
    ("orange", [238, 128, 34]),
    ("peach", [250, 190, 150]),
    ("coral", [244, 120, 98]),
    ("red", [200, 34, 40]),
    ("maroon", [112, 20, 34]),
    ("burgundy", [96, 16, 42]),
    ("wine", [100, 24, 50]),
    ("pink", [240, 140, 176]),
    ("rose", [222, 92, 122]),
    ("magenta", [200, 30, 130]),
    ("purple", [110, 52, 150]),
    ("violet", [120, 70, 170]),
    ("lavender", [186, 170, 220]),
    ("mauve", [178, 130, 160]),
    ("indigo", [60, 50, 130]),
    ("aqua", [80, 200, 210]),
    ("cyan", [40, 190, 210]),
    ("ivory", [252, 248, 228]),
    ("lemon", [250, 236, 90]),
    ("transparent", [235, 240, 244]),
];

/// Stripes for what has several colours.
pub const MULTI: [Colour; 4] = [[200, 34, 40], [246, 214, 44], [52, 135, 62], [43, 96, 185]];

/// The colours of a swatch: one, several for `Multi`, none for a name that is not known.
pub fn swatch(name: &str) -> Vec<Colour> {
    let name = name.to_lowercase();
    if name.starts_with("multi") {
        return MULTI.to_vec();
    }
    NAMED.iter().find(|n| n.0 == name).map(|n| n.1).into_iter().collect()
}
