//! Pages of a list that is in memory (Feast: `rest_utils.paginate_and_sort`).

use std::ops::Range;

use serde_json::{Map, Value};

/// Which page of a list is wanted: pages count from 1 and have `limit` items each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paging {
    pub(crate) page: u32,
    pub(crate) limit: u32,
}

impl Paging {
    /// Where the page stands in a list of so many items; empty beyond its end.
    pub(crate) fn range(self, total: usize) -> Range<usize> {
        let limit = self.limit as usize;
        let start = (self.page as usize).saturating_sub(1).saturating_mul(limit);
        start.min(total)..start.saturating_add(limit).min(total)
    }

    /// What the answer says about the page. As in protobuf's JSON, zero and false are left out.
    pub(crate) fn metadata(self, total: usize) -> Map<String, Value> {
        let limit = self.limit as usize;
        let mut metadata = Map::new();
        let mut put = |name: &str, number: usize| {
            if number > 0 {
                metadata.insert(name.to_owned(), number.into());
            }
        };
        put("page", self.page as usize);
        put("limit", limit);
        put("totalCount", total);
        put("totalPages", total.div_ceil(limit.max(1)));
        if self.range(total).end < total {
            metadata.insert("hasNext".to_owned(), true.into());
        }
        if self.page > 1 && limit > 0 {
            metadata.insert("hasPrevious".to_owned(), true.into());
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_divide_a_list(total in 0_usize..500, limit in 1_u32..60) {
            let pages = (1..).map(|page| Paging { page, limit });
            let with_items: Vec<_> = pages.take_while(|paging| !paging.range(total).is_empty()).collect();
            let items: Vec<usize> = with_items.iter().flat_map(|paging| paging.range(total)).collect();
            prop_assert_eq!(items, (0..total).collect::<Vec<_>>());
            for paging in &with_items {
                let metadata = paging.metadata(total);
                prop_assert_eq!(&metadata["totalPages"], with_items.len());
                prop_assert_eq!(metadata.contains_key("hasNext"), (paging.page as usize) < with_items.len());
                prop_assert_eq!(metadata.contains_key("hasPrevious"), paging.page > 1);
            }
        }

        #[test]
        fn no_page_panics(page: u32, limit: u32, total: usize) {
            let paging = Paging { page, limit };
            let range = paging.range(total);
            prop_assert!(range.start <= range.end && range.end <= total);
            paging.metadata(total);
        }
    }
}
