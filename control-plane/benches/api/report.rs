//! Figures beside their targets.

use std::time::Duration;

use super::Cost;

/// One line each; a target that is no number is none.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(String, String, f64, f64)>);

impl Report {
    pub(crate) fn time(&mut self, name: &str, took: Duration, unit: &str, target: f64) {
        let ms = took.as_secs_f64() * 1000.0;
        self.line(name, format!("{ms:.0} {unit}"), ms, target);
    }

    pub(crate) fn size(&mut self, name: &str, mb: f64, target: f64) {
        self.line(name, format!("{mb:.1} MB"), mb, target);
    }

    pub(crate) fn cost(&mut self, name: &str, cost: Cost, target: f64) {
        let text = format!("{:.3} ms CPU, {:.0}/s", cost.cpu_ms, cost.rate);
        self.line(name, text, cost.cpu_ms, target);
    }

    pub(crate) fn event(&mut self, name: &str, micros: f64, rate: f64, target: f64) {
        let text = format!("{micros:.2} us CPU, {rate:.0}/s");
        self.line(name, text, micros, target);
    }

    pub(crate) fn each(&mut self, name: &str, amount: f64, unit: &str, target: f64) {
        self.line(name, format!("{amount:.1} {unit}"), amount, target);
    }

    fn line(&mut self, name: &str, text: String, value: f64, target: f64) {
        println!("{name}: {text}");
        self.0.push((name.to_owned(), text, value, target));
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:<42} {:<28} {:>8}  ratio",
            "figure", "measured", "target"
        );
        for (name, text, value, target) in &self.0 {
            if target.is_nan() {
                println!("{name:<42} {text:<28}");
            } else {
                println!("{name:<42} {text:<28} {target:>8}  {:.2}", value / target);
            }
        }
    }
}
