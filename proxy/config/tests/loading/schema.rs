//! The schema that `meshgate schema` prints.

use serde_json::Value;

#[test]
fn it_is_a_valid_schema_and_describes_every_key() {
    let schema = meshgate_config::schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let mut maps = vec![&schema];
    maps.extend(schema["$defs"].as_object().unwrap().values());
    let mut keys = 0;
    for map in maps.iter().filter(|map| map["type"] == "object") {
        assert_eq!(map["additionalProperties"], Value::Bool(false), "{map}");
        for (key, property) in map["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "`{key}` has no description");
            keys += 1;
        }
    }
    assert!(keys > 30, "only {keys} keys");
}

#[test]
fn every_valid_file_fits_it() {
    let schema = meshgate_config::schema();
    for key in ["admin", "access_log", "workers", "drain", "listeners", "chains", "filters", "clusters"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["required"], serde_json::json!(["listeners"]));
}
