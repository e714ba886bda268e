//! Pages of lists. A token names the last item of its page, so that what is added or removed meanwhile moves nothing.

use std::collections::BinaryHeap;

use muster_proto::error::Problem;

use super::problem::invalid_field;

/// The size of a page: 1 to `max`, 0 is `default`.
pub fn size(asked: i32, default: usize, max: usize) -> Result<usize, Problem> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) if size <= max => Ok(size),
        _ => Err(invalid_field(
            "page_size",
            format!("must be from 1 to {max}, or 0 for {default}"),
        )),
    }
}

/// The items of a page and the token of the next. `items` are sorted by `key`; `token` is a key or empty.
pub fn page<T, K: Ord>(
    items: Vec<T>,
    size: usize,
    token: &str,
    key: impl Fn(&T) -> K,
    write: impl Fn(&T) -> String,
    read: impl Fn(&str) -> Option<K>,
) -> Result<(Vec<T>, String), Problem> {
    let start = if token.is_empty() {
        0
    } else {
        let last = read(token).ok_or_else(|| invalid_field("page_token", "is not one that a list has returned"))?;
        items.partition_point(|item| key(item) <= last)
    };
    let mut page: Vec<T> = items.into_iter().skip(start).take(size + 1).collect();
    let has_more = page.len() > size;
    page.truncate(size);
    let next = page.last().filter(|_| has_more).map(write).unwrap_or_default();
    Ok((page, next))
}

/// The first of many in order, of which no more is kept than a page takes.
pub struct First<K> {
    size: usize,
    after: Option<K>,
    /// One more than the page has, to know whether there is another.
    kept: BinaryHeap<K>,
}

impl<K: Ord> First<K> {
    /// Those behind the one that a token names; from the beginning when it is empty.
    pub fn after(token: &str, size: usize, read: impl Fn(&str) -> Option<K>) -> Result<Self, Problem> {
        let after = match token {
            "" => None,
            token => {
                Some(read(token).ok_or_else(|| invalid_field("page_token", "is not one that a list has returned"))?)
            }
        };
        Ok(Self {
            size,
            after,
            kept: BinaryHeap::with_capacity(size + 2),
        })
    }

    /// `own` makes a key of one that is borrowed, and only when it is to be kept.
    pub fn offer<B>(&mut self, key: B, own: impl FnOnce(B) -> K)
    where
        K: Behind<B>,
    {
        if self.after.as_ref().is_some_and(|after| !after.is_before(&key)) {
            return;
        }
        let is_full = self.kept.len() > self.size;
        if is_full && self.kept.peek().is_some_and(|last| last.is_before(&key)) {
            return;
        }
        self.kept.push(own(key));
        if is_full {
            self.kept.pop();
        }
    }

    /// The keys of the page in order, and the token of the next.
    pub fn end(self, write: impl Fn(&K) -> String) -> (Vec<K>, String) {
        let mut page = self.kept.into_sorted_vec();
        let has_more = page.len() > self.size;
        page.truncate(self.size);
        let next = page.last().filter(|_| has_more).map(write).unwrap_or_default();
        (page, next)
    }
}

/// Order between a key and a borrowed one.
pub trait Behind<B> {
    fn is_before(&self, other: &B) -> bool;
}

impl<I: Ord> Behind<(&str, I)> for (String, I) {
    fn is_before(&self, (name, id): &(&str, I)) -> bool {
        (self.0.as_str(), &self.1) < (*name, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_are_the_pages_of_all_in_order() {
        let names = ["d", "a", "c", "b", "e", "a"];
        let read = |token: &str| {
            let (name, id) = token.split_once(' ')?;
            Some((name.to_owned(), id.parse::<usize>().ok()?))
        };
        for size in 1..=7 {
            let (mut all, mut token) = (Vec::new(), String::new());
            loop {
                let mut first = First::after(&token, size, read).expect("a token");
                for (id, name) in names.into_iter().enumerate() {
                    first.offer((name, id), |(name, id)| (name.to_owned(), id));
                }
                let (page, next) = first.end(|(name, id)| format!("{name} {id}"));
                assert!(page.len() <= size && !page.is_empty());
                all.extend(page.into_iter().map(|(name, id)| format!("{name}{id}")));
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(all, ["a1", "a5", "b3", "c2", "d0", "e4"], "{size}");
        }
        assert!(First::<(String, usize)>::after("x", 1, read).is_err());
    }

    fn pages(items: Vec<u32>, size: usize, token: &str) -> (Vec<u32>, String) {
        page(
            items,
            size,
            token,
            |item| *item,
            ToString::to_string,
            |text| text.parse().ok(),
        )
        .expect("a page")
    }

    #[test]
    fn pages_join_to_the_whole_list() {
        let (first, token) = pages(vec![1, 2, 3, 4, 5], 2, "");
        // 2 goes and 6 comes between two pages: nothing is doubled, nothing that stayed is lost.
        let (second, token) = pages(vec![1, 3, 4, 5, 6], 2, &token);
        let (third, end) = pages(vec![1, 3, 4, 5, 6], 2, &token);
        assert_eq!([first, second, third].concat(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(end, "");
    }

    #[test]
    fn a_foreign_token_and_a_wrong_size_are_refused() {
        assert!(
            page(
                vec![1],
                1,
                "x",
                |i| *i,
                ToString::to_string,
                |text| text.parse::<u32>().ok()
            )
            .is_err()
        );
        assert!(size(-1, 5, 10).is_err() && size(11, 5, 10).is_err());
        assert_eq!(size(0, 5, 10).expect("default"), 5);
    }
}
