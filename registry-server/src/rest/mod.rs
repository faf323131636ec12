pub(crate) mod definition;
