/** One task: tell from the words of a text what it may do, where no more has to be known: each answer errs to the safe side. */

const EXPLAIN = /^\s*explain\b/i;
const ONLY_THERE = /\bfor\b|ctid|tableoid|\b[xc]m(?:in|ax)\b|tablesample|\bonly\b/i;
const HOLDS_TABLES = /\btruncate\b|\block\b/i;
const CURSOR = /\bdeclare\b/i;

export function isExplained(text: string): boolean {
  return EXPLAIN.test(text);
}

/** It locks rows, or asks where they lie: the coordinator would lock them for itself, or answer for itself. */
export function isOnlyThere(text: string): boolean {
  return ONLY_THERE.test(text);
}

/** It locks whole tables. */
export function holdsTables(text: string): boolean {
  return HOLDS_TABLES.test(text);
}

export function mayOpenCursor(text: string): boolean {
  return CURSOR.test(text);
}

/** No function, which may tell of the transaction it runs in or do something in it, and no cursor. */
export function leavesNothing(text: string): boolean {
  return (
    /^\s*(?:select|show|table|values)\b/i.test(text) &&
    !/[(;]|\binto\b|\bcurrent_|\blocaltime/i.test(text.replace(/;\s*$/, ''))
  );
}

/** Without a primary key a table can be read all the same; only GROUP BY of that key may name other columns beside it. */
export function isMissed(text: string, object: string): boolean {
  return mentions(text, object) && (!object.startsWith('primary key of ') || /\bgroup\b/i.test(text));
}

/** Whether a text may name an object, as `view app.late` or `function app.total(integer)`, by its bare name. */
function mentions(text: string, object: string): boolean {
  const name = object.replace(/\(.*$/s, '').split(/[ .]/).at(-1) ?? '';
  return name === '' || text.toLowerCase().includes(name.replaceAll('"', '').toLowerCase());
}
