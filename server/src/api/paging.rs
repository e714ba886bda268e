//! Pages of lists. A token names the last item of its page, so that what is added or removed meanwhile moves nothing.

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

#[cfg(test)]
mod tests {
    use super::*;

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
