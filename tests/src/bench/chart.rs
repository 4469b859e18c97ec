//! The chart: ns a context switch of each contender, as bars on a logarithmic
//! scale.
//!
//! The picture brings its own white ground, so it can be read on a dark page.
//! Its letters are the reader's: nothing of a font is needed to draw it.

use anyhow::Result;
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{PathElement, Rectangle, Text},
    style::{
        Color as _, IntoFont as _, RGBColor, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    contenders::FLOOR,
    document::{Document, TRACER},
    events,
    markdown::{contenders, number},
};

const WIDTH: i32 = 820;
const LEFT: i32 = 150;
const RIGHT: i32 = 90;
const TOP: i32 = 64;
const ROW: i32 = 30;
const BAR: i32 = 18;
const BOTTOM: i32 = 40;
/// The scale, in ns.
const FROM_NS: f64 = 10.0;

const INK: RGBColor = RGBColor(36, 41, 47);
const FAINT: RGBColor = RGBColor(208, 215, 222);
const GREY: RGBColor = RGBColor(140, 149, 159);
const OWN: RGBColor = RGBColor(26, 127, 55);
const PEER: RGBColor = RGBColor(84, 110, 160);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the chart of a finished document.
///
/// # Errors
/// Never, in practice: it is drawn into memory.
pub fn svg(document: &Document) -> Result<String> {
    let figures: Vec<_> = contenders(document, events::SWITCHES)
        .into_iter()
        .filter_map(|name| document.figure(events::SWITCHES, name, events::HOOK.name))
        .collect();
    let most = figures.iter().map(|f| f.most).fold(100.0, f64::max);
    let to_ns = 10_f64.powf(most.log10().ceil());
    let x_of = |ns: f64| {
        let part = (ns.max(FROM_NS) / FROM_NS).log10() / (to_ns / FROM_NS).log10();
        LEFT + (part * f64::from(WIDTH - LEFT - RIGHT)) as i32
    };
    let bottom = TOP + ROW * figures.len() as i32;
    let height = (bottom + BOTTOM) as u32;
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, (WIDTH as u32, height)).into_drawing_area();
        area.fill(&WHITE)?;
        write(
            &area,
            "ns a context switch in the program on sched_switch",
            (16, 20),
            17,
            HPos::Left,
        )?;
        let under = format!(
            "median; the thin line is from the least to the most; logarithmic; Linux {}",
            document.machine.kernel
        );
        write(&area, &under, (16, 42), 12, HPos::Left)?;
        let mut tick_ns = FROM_NS;
        while tick_ns <= to_ns {
            let x = x_of(tick_ns);
            area.draw(&PathElement::new(vec![(x, TOP - 4), (x, bottom)], FAINT))?;
            write(
                &area,
                &number(tick_ns.round()).replace(".0", ""),
                (x, bottom + 14),
                12,
                HPos::Center,
            )?;
            tick_ns *= 10.0;
        }
        for (row, figure) in figures.iter().enumerate() {
            let middle = TOP + ROW * row as i32 + ROW / 2;
            let color = match figure.contender.as_str() {
                FLOOR => GREY,
                TRACER => OWN,
                _ => PEER,
            };
            let bar = [
                (LEFT, middle - BAR / 2),
                (x_of(figure.median), middle + BAR / 2),
            ];
            area.draw(&Rectangle::new(bar, color.filled()))?;
            let spread = vec![(x_of(figure.least), middle), (x_of(figure.most), middle)];
            area.draw(&PathElement::new(spread, INK))?;
            write(
                &area,
                &figure.contender,
                (LEFT - 8, middle),
                14,
                HPos::Right,
            )?;
            let end = x_of(figure.most.max(figure.median)) + 8;
            write(&area, &number(figure.median), (end, middle), 14, HPos::Left)?;
        }
        area.present()?;
    }
    Ok(drawn)
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&INK)
        .pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::document::tests::empty;

    #[test]
    fn every_contender_has_its_name_and_figure_in_the_picture() {
        let mut document = empty();
        for (name, ns) in [(FLOOR, 78.0), (TRACER, 81.0), ("runqlat", 518.0)] {
            document.note(events::SWITCHES, name, &events::HOOK, ns);
        }
        document.finish();
        let drawn = svg(&document).unwrap();
        for text in [FLOOR, TRACER, "runqlat", "78.0", "518", "1,000"] {
            assert!(drawn.contains(text), "{text}: {drawn}");
        }
    }

    #[test]
    fn a_run_that_measured_nothing_has_an_empty_picture() {
        assert!(svg(&empty()).unwrap().starts_with("<svg"));
    }
}
