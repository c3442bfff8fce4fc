/**
 * One task: find, for each object of a dump made with --clean, the statement by which pg_dump drops it.
 *
 * The DROP statements stand before the first entry, dependents first, and do not say which entry they belong to; their
 * words do. One that matches no entry is not used.
 */
import { IDENTIFIER, QUALIFIED } from './names.js';
import type { DumpedStatement, DumpEntry } from './statements.js';
import type { Turns } from './turns.js';

/** `DROP TRIGGER IF EXISTS name ON table`: the entry is called `table name` in the table's schema. */
const ON_TABLE = new RegExp(
  `^DROP (?<type>TRIGGER|RULE|POLICY) IF EXISTS (?<name>${IDENTIFIER}) ON (?<table>${QUALIFIED});$`,
);
const CONSTRAINT = new RegExp(
  `^ALTER (?:FOREIGN )?TABLE IF EXISTS (?:ONLY )?(?<table>${QUALIFIED}) DROP CONSTRAINT IF EXISTS (?<name>${IDENTIFIER});$`,
);
const DEFAULT = new RegExp(
  `^ALTER (?:FOREIGN )?TABLE IF EXISTS (?:ONLY )?(?<table>${QUALIFIED}) ALTER COLUMN (?<name>${IDENTIFIER}) DROP DEFAULT;$`,
);
/** A view in a circle of dependencies is first made a view of nothing; its real query is a rule of the dump. */
const VIEW_OF_NOTHING = new RegExp(`^CREATE OR REPLACE VIEW (?<table>${QUALIFIED}) AS\\b`);
const OBJECT = /^DROP (?<type>[A-Z ]+) IF EXISTS (?<name>[^]+?)(?: CASCADE)?;$/;

const ROUTINE_TYPES: ReadonlySet<string> = new Set(['FUNCTION', 'PROCEDURE']);

/** Which entry is dropped by which statement, by the entry's number. */
export async function dropsByEntry(
  dumped: readonly DumpedStatement[],
  turns: Turns,
): Promise<ReadonlyMap<number, string>> {
  const entries = new Map<string, number>();
  for (const { entry } of dumped) {
    const key = keyOf(entry.type, nameOf(entry));
    if (!entries.has(key)) entries.set(key, entry.number);
  }
  const head = dumped.filter(({ entry }) => entry.number === 0).map(({ text }) => text);
  const drops = routineDrops(dumped, head);
  for (const text of head) {
    const number = possibleKeys(text)
      .map((key) => entries.get(key))
      .find((found) => found !== undefined);
    if (number !== undefined) drops.set(number, text);
    if (turns.over) await turns.next();
  }
  return drops;
}

/** A routine's entry has the types of its arguments, its DROP also their names: told by their order, which is reversed. */
function routineDrops(dumped: readonly DumpedStatement[], head: readonly string[]): Map<number, string> {
  const routines = new Map(
    dumped.filter(({ entry }) => ROUTINE_TYPES.has(entry.type)).map(({ entry }) => [entry.number, entry]),
  );
  const texts = head.filter((text) => /^DROP (FUNCTION|PROCEDURE) /.test(text)).reverse();
  const drops = new Map<number, string>();
  for (const [at, entry] of [...routines.values()].entries()) {
    const text = texts[at];
    const start = keyOf(`DROP ${entry.type} IF EXISTS`, nameOf(entry).replace(/\([^]*$/, '('));
    if (text?.replaceAll('"', '').startsWith(start) === true) drops.set(entry.number, text);
  }
  return drops;
}

function nameOf(entry: DumpEntry): string {
  return entry.schema === null ? entry.name : `${entry.schema}.${entry.name}`;
}

/** Entries are named without quotes. */
function keyOf(type: string, name: string): string {
  return `${type} ${name.replaceAll('"', '')}`;
}

function possibleKeys(text: string): readonly string[] {
  const partOfTable = (types: readonly string[], groups: Record<string, string>): readonly string[] =>
    types.map((type) => keyOf(type, `${groups.table ?? ''} ${groups.name ?? '_RETURN'}`));
  const onTable = ON_TABLE.exec(text)?.groups;
  if (onTable) return partOfTable([onTable.type ?? ''], onTable);
  const constraint = CONSTRAINT.exec(text)?.groups;
  if (constraint) return partOfTable(['FK CONSTRAINT', 'CHECK CONSTRAINT', 'CONSTRAINT'], constraint);
  const column = DEFAULT.exec(text)?.groups;
  if (column) return partOfTable(['DEFAULT'], column);
  const view = VIEW_OF_NOTHING.exec(text)?.groups;
  if (view) return partOfTable(['RULE'], view);
  const object = OBJECT.exec(text)?.groups;
  return object ? objectKeys(object.type ?? '', object.name ?? '') : [];
}

/** An operator's entry has no argument types, an operator class no access method, a cast its own word. */
function objectKeys(type: string, name: string): readonly string[] {
  return [keyOf(type, name), keyOf(type, name.replace(/ (?:\(|USING )[^]*$/, '')), keyOf(type, `${type} ${name}`)];
}
