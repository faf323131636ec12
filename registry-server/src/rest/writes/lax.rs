//! Values of a body as Feast's server takes them: numbers may be texts, flags may be words, and what may be left out may be `null`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A whole number, as one, as `4.0` or as `"4"`.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let given = Option::<Value>::deserialize(deserializer)?;
    let Some(given) = given else { return Ok(None) };
    let number = match &given {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?)),
        Value::Bool(is) => Some(i64::from(*is)),
        _ => None,
    };
    number.map(Some).ok_or_else(|| D::Error::custom(format!("a whole number was expected, not {given}")))
}

fn whole(number: f64) -> Option<i64> {
    // Beyond these not every whole number is one.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// Whether something is so: as a flag, as 0 or 1, or in words.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let given = Option::<Value>::deserialize(deserializer)?;
    let Some(given) = given else { return Ok(None) };
    let is = match &given {
        Value::Bool(is) => Some(*is),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) => super::super::parameters::flag(text),
        _ => None,
    };
    is.map(Some).ok_or_else(|| D::Error::custom(format!("true or false was expected, not {given}")))
}

/// What may be `null` for nothing.
pub(super) fn nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "number")]
        number: Option<i64>,
        #[serde(default, deserialize_with = "flag")]
        flag: Option<bool>,
        #[serde(default, deserialize_with = "nothing")]
        text: String,
    }

    #[test]
    fn values_are_taken_as_feast_takes_them() {
        let read = |body: &str| serde_json::from_str::<Body>(body);
        for (body, number, flag) in [
            ("{}", None, None),
            (r#"{"number": null, "flag": null, "text": null}"#, None, None),
            (r#"{"number": 4, "flag": true}"#, Some(4), Some(true)),
            (r#"{"number": 4.0, "flag": 0}"#, Some(4), Some(false)),
            (r#"{"number": " 4 ", "flag": "Yes"}"#, Some(4), Some(true)),
            (r#"{"number": true, "flag": 1.0}"#, Some(1), Some(true)),
        ] {
            let read = read(body).expect(body);
            assert_eq!((read.number, read.flag, read.text.as_str()), (number, flag, ""), "{body}");
        }
        for body in [
            r#"{"number": 4.5}"#,
            r#"{"number": "four"}"#,
            r#"{"number": 1e300}"#,
            r#"{"flag": 2}"#,
            r#"{"flag": "maybe"}"#,
            r#"{"text": 1}"#,
        ] {
            read(body).expect_err(body);
        }
    }
}
