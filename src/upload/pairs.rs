//! Where two bytes stand beside each other, many places asked at once.

/// Where a byte and the one behind it are a pair, for a question without branches.
///
/// A byte alone stands in every third or three-hundredth place of a file, and a search that stops
/// there each time is slow; a pair is rare, unless somebody puts it there, and costs no more to ask
/// for.
pub(super) fn pairs(
    data: &[u8],
    is: impl Fn(u8, u8) -> bool + Copy,
) -> impl Iterator<Item = usize> {
    let begins = (0..data.len().saturating_sub(1)).step_by(BLOCK);
    let blocks = begins.map(move |at| (at, &data[at..data.len().min(at + BLOCK + 1)]));
    let holding = blocks.filter(move |(_, block)| {
        let seconds = block.get(1..).and_then(<[u8]>::first_chunk);
        match (block.first_chunk(), seconds) {
            (Some(firsts), Some(seconds)) => holds(firsts, seconds, is),
            _ => true,
        }
    });
    holding.flat_map(move |(at, block)| {
        let found = block.windows(2).enumerate();
        found.filter_map(move |(offset, pair)| is(pair[0], pair[1]).then_some(at + offset))
    })
}

/// Asks for all, whatever the first ones are: so it is done for many at once.
#[inline(always)]
fn holds(firsts: &[u8; BLOCK], seconds: &[u8; BLOCK], is: impl Fn(u8, u8) -> bool) -> bool {
    let both = firsts.iter().zip(seconds);
    both.fold(false, |any, (first, second)| any | is(*first, *second))
}

const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_found_once_wherever_it_stands() {
        for len in [0, 1, 2, 63, 64, 65, 66, 127, 128, 129, 130, 200] {
            for at in 0..len {
                let mut data = vec![b'a'; len];
                data[at] = b'b';
                let is = |first, second| (first == b'b') & (second == b'a');
                let found: Vec<usize> = pairs(&data, is).collect();
                let expected: Vec<usize> = (at + 1 < len).then_some(at).into_iter().collect();
                assert_eq!(found, expected, "{at} of {len}");
            }
        }
        let all: Vec<usize> = pairs(&[7; 300], |first, second| first == second).collect();
        assert_eq!(all, (0..299).collect::<Vec<_>>());
    }
}
