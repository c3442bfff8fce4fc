/** One task: guess which known word a misspelt one was meant to be. */

/**
 * The nearest of `known`, or null when none is near: at most a third of the letters may differ.
 * Comparison ignores case, so that `Host` finds `host`.
 */
export function suggest(word: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Levenshtein's distance, where two neighbours that changed places count as one edit: the commonest slip. */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const replaced = at(previous, column - 1) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const exchanged =
        a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1] ? at(beforePrevious, column - 2) + 1 : Infinity;
      current.push(Math.min(replaced, exchanged, at(previous, column) + 1, at(current, column - 1) + 1));
    }
    [beforePrevious, previous] = [previous, current];
  }
  return at(previous, b.length);
}

/** Outside of the table no alignment exists. */
function at(row: readonly number[], column: number): number {
  return row[column] ?? Infinity;
}
