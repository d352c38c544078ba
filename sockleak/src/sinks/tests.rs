use std::cell::RefCell;
use std::rc::Rc;

use sockleak_core::observed::Loss;
use sockleak_core::testing::at;

use super::*;

/// What the sinks of a test were given, in order.
type Given = Rc<RefCell<Vec<&'static str>>>;

struct Noted {
    name: &'static str,
    given: Given,
    fails: bool,
}

impl Noted {
    fn note(&self) -> io::Result<()> {
        self.given.borrow_mut().push(self.name);
        if self.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Sink for Noted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn take(&mut self, _: &Event) -> io::Result<()> {
        self.note()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.note()
    }
}

fn event() -> Event {
    Event::Lost(Loss {
        time: at(0),
        events: 1,
        processes: 0,
    })
}

fn sink(name: &'static str, given: &Given, fails: bool) -> Noted {
    let given = Rc::clone(given);
    Noted { name, given, fails }
}

#[test]
fn the_first_one_ends_it_and_the_others_have_the_event() {
    let given = Given::default();
    let mut first = sink("first", &given, true);
    let mut sinks = Sinks::new(&mut first);
    sinks.add(Box::new(sink("second", &given, false)));
    let error = sinks.take(&event()).expect_err("the first one failed");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(*given.borrow(), ["second", "first"]);
}

#[test]
fn the_others_are_told_once_and_counted() {
    let given = Given::default();
    let mut first = sink("first", &given, false);
    let mut sinks = Sinks::new(&mut first);
    sinks.add(Box::new(sink("broken", &given, true)));
    sinks.add(Box::new(sink("whole", &given, false)));
    let told: Vec<usize> = (0..3).map(|_| sinks.take(&event()).unwrap().len()).collect();
    assert_eq!(told, [1, 0, 0]);
    let (failures, missed) = sinks.finish().unwrap();
    assert!(failures.is_empty());
    assert_eq!(missed, [("broken", 4)]);
    let whole = given.borrow().iter().filter(|name| **name == "whole").count();
    assert_eq!(whole, 4);
}
