//! A plan as text and as JSON: what will be done, in order, and why.

use super::{Origin, Plan, Text};
use crate::step::Step;
use serde_json::{Value, json};
use std::fmt::Write;

impl Plan {
    /// For each step its name, what it works on, and the place in `config.json` it comes from.
    pub fn step_labels(&self) -> Vec<[String; 3]> {
        let label = |(step, origin): &(Step<Text>, Origin)| {
            let text = format!("{step:?}");
            let (name, object) = text.split_once(' ').unwrap_or((&text, ""));
            [name.to_owned(), object.to_owned(), origin.to_string()]
        };
        self.steps().iter().map(label).collect()
    }

    /// The plan as text: a line for each step, with the place in `config.json` it comes from.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let place_width = self.steps().iter().map(|(_, origin)| origin.len()).max().unwrap_or(0);
        for (at, (step, origin)) in self.steps().iter().enumerate() {
            let _ = writeln!(text, "{at:4}  {origin:place_width$}  {step:?}");
        }
        for (at, (what, origin)) in self.handed.iter().enumerate() {
            let _ = writeln!(
                text,
                "Fd({at}) is {what:?}{}{origin}",
                if origin.is_empty() { "" } else { ", for " }
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }

    /// The same as an object with `steps`, `handed` and `warnings`. Environments are not in it.
    pub fn to_json(&self) -> Value {
        let steps = self.steps().iter().map(|(step, origin)| {
            let mut step = serde_json::to_value(step).unwrap_or(Value::Null);
            if let Some(env) = step.pointer_mut("/Exec/env") {
                *env = Value::Null;
            }
            json!({ "at": origin, "step": step })
        });
        let handed = self.handed.iter().map(|(what, origin)| json!({ "at": origin, "what": what }));
        json!({
            "steps": steps.collect::<Vec<_>>(),
            "handed": handed.collect::<Vec<_>>(),
            "newUserNamespace": self.new_user_namespace,
            "idMaps": self.id_maps,
            "warnings": self.warnings,
        })
    }
}
