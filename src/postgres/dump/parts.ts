/**
 * One task: divide a dumped schema into what stands before the copy, what the copy needs, and what comes after it.
 *
 * pg_dump's order is kept within each part, being the order of dependencies; only the privileges on schemas come earlier.
 */
import { adaptText, knowsSetting } from './adapt.js';
import { dropsByEntry } from './drops.js';
import { IDENTIFIER, QUALIFIED } from './names.js';
import { splitStatements, type DumpedStatement, type DumpEntry } from './statements.js';
import { Turns } from './turns.js';

export interface Statement {
  readonly entry: DumpEntry;
  readonly text: string;
  /** the settings in force at this place of the dump, by name: what `SET LOCAL` sets before the statement */
  readonly settings: ReadonlyMap<string, string>;
  /** what takes the object away again; null where it goes with another one, or nothing was made */
  readonly drop: string | null;
}

export interface SchemaParts {
  /** before the copy: everything but indexes, constraints and triggers; privileges too */
  readonly pre: readonly Statement[];
  /** before the copy, after `pre`: primary keys and the indexes that are a replica identity */
  readonly primaryKeys: readonly Statement[];
  /** after the copy: other indexes, constraints, triggers, rules, policies, statistics */
  readonly post: readonly Statement[];
}

export interface SplitOptions {
  /** `server_version_num` of the server the statements are for: what it does not know is left out */
  readonly destinationVersion: number;
}

/** With the first of these begins what pg_dump calls post-data (PostgreSQL documentation, pg_dump, --section). */
const POST_DATA_TYPES: ReadonlySet<string> = new Set([
  'CHECK CONSTRAINT',
  'CONSTRAINT',
  'EVENT TRIGGER',
  'FK CONSTRAINT',
  'INDEX',
  'INDEX ATTACH',
  'POLICY',
  'ROW SECURITY',
  'RULE',
  'STATISTICS',
  'TRIGGER',
]);
/** pg_dump writes these last; what they name exists after `pre`. */
const PRIVILEGE_TYPES: ReadonlySet<string> = new Set(['ACL', 'DEFAULT ACL', 'ACL LANGUAGE']);
const LEFT_OUT_TYPES = /^(PUBLICATION|SUBSCRIPTION)\b/;

const SETTING = /^SET (?<name>\w+) = (?<value>.*);$/;
const SEARCH_PATH = /^SELECT pg_catalog\.set_config\('search_path', '', false\);$/;
const PRIMARY_KEY = new RegExp(
  `^ALTER TABLE (?:ONLY )?(?<table>${QUALIFIED})\\s+ADD CONSTRAINT (?<index>${IDENTIFIER}) PRIMARY KEY\\b`,
);
const REPLICA_IDENTITY = new RegExp(
  `^ALTER TABLE (?:ONLY )?(?<table>${QUALIFIED}) REPLICA IDENTITY USING INDEX (?<index>${IDENTIFIER});$`,
);
const CONSTRAINT = new RegExp(
  `^ALTER TABLE (?:ONLY )?(?<table>${QUALIFIED})\\s+ADD CONSTRAINT (?<index>${IDENTIFIER}) `,
);
const INDEX_ATTACH = new RegExp(`^ALTER INDEX (?<parent>${QUALIFIED}) ATTACH PARTITION (?<child>${QUALIFIED});$`);

/** What Cutover itself has put on the tables of a side: the fence, indexes for the time of a move, and the grants of its replication roles. */
const OWN_OBJECTS = new RegExp(
  [
    String.raw`^CREATE TRIGGER cutover_fence_`,
    String.raw`^CREATE UNIQUE INDEX cutover_\w+_identity_\d+ `,
    String.raw`^ALTER TABLE (?:ONLY )?${QUALIFIED} REPLICA IDENTITY USING INDEX cutover_\w+_identity_\d+;`,
    String.raw`^ALTER TABLE (?:ONLY )?${QUALIFIED} (?:ENABLE|DISABLE) (?:ALWAYS |REPLICA )?TRIGGER cutover_fence_`,
    String.raw`^CREATE EVENT TRIGGER cutover_`,
    String.raw`^ALTER EVENT TRIGGER cutover_`,
    String.raw`^(?:GRANT|REVOKE) [^;]* (?:TO|FROM) cutover_\w+_replication(?: WITH GRANT OPTION)?;$`,
  ].join('|'),
);

/**
 * Divides the output of pg_dump (`dumpSchema` with both sections).
 *
 * Left out: publications, subscriptions, psql commands, what Cutover itself has added to the source, and settings and
 * privileges that the destination's version does not know. A thousand tables take a tenth of a second of a processor, in turns.
 *
 * @throws Error when the dump is cut off
 */
export async function splitSchema(dump: string, options: SplitOptions): Promise<SchemaParts> {
  const turns = new Turns();
  const statements = await completed(await splitStatements(dump, turns), options.destinationVersion, turns);
  const boundary = statements.findIndex(({ entry }) => POST_DATA_TYPES.has(entry.type));
  const end = boundary < 0 ? statements.length : boundary;
  const isPre = (statement: Statement, at: number): boolean => at < end || PRIVILEGE_TYPES.has(statement.entry.type);
  const after = statements.filter((statement, at) => !isPre(statement, at));
  const needed = await entriesTheCopyNeeds(after, turns);
  return {
    pre: schemaPrivilegesFirst(statements.filter(isPre)),
    primaryKeys: after.filter(({ entry }) => needed.has(entry.number)),
    post: after.filter(({ entry }) => !needed.has(entry.number)),
  };
}

/**
 * The privileges on schemas directly behind the schemas. pg_dump writes all privileges last, and restores as a superuser; without one
 * an object cannot be given to a role that may not create it there (PostgreSQL documentation, ALTER TABLE, OWNER TO).
 */
function schemaPrivilegesFirst(statements: readonly Statement[]): readonly Statement[] {
  const isPrivilege = ({ entry }: Statement): boolean => entry.type === 'ACL' && entry.name.startsWith('SCHEMA ');
  const others = statements.filter((statement) => !isPrivilege(statement));
  const at = others.findLastIndex(({ entry }) => entry.type === 'SCHEMA') + 1;
  return [...others.slice(0, at), ...statements.filter(isPrivilege), ...others.slice(at)];
}

/** Gives each statement that is not left out the settings before it and the DROP that undoes it; these stand alone in the dump. */
async function completed(
  dumped: readonly DumpedStatement[],
  destinationVersion: number,
  turns: Turns,
): Promise<readonly Statement[]> {
  const drops = await dropsByEntry(dumped, turns);
  const attached = await attachedIndexes(dumped, turns);
  const dropped = new Set<number>();
  const result: Statement[] = [];
  let settings: ReadonlyMap<string, string> = new Map();
  for (const { entry, text } of dumped) {
    const setting = settingIn(text);
    if (setting && knowsSetting(destinationVersion, setting.name))
      settings = new Map([...settings, [setting.name, setting.value]]);
    const adapted = adaptText(text, entry, destinationVersion);
    if (setting || entry.number === 0 || adapted === null) continue;
    // The first statement of an entry makes the object, the others say more about it.
    const isFirst = !dropped.has(entry.number) && !attached.has(indexOf(CONSTRAINT, text) ?? '');
    const drop = isFirst ? (drops.get(entry.number) ?? null) : null;
    dropped.add(entry.number);
    if (!LEFT_OUT_TYPES.test(entry.type) && !OWN_OBJECTS.test(adapted))
      result.push({ entry, text: adapted, settings, drop });
    if (turns.over) await turns.next();
  }
  return result;
}

function settingIn(text: string): { name: string; value: string } | null {
  if (SEARCH_PATH.test(text)) return { name: 'search_path', value: "''" };
  const groups = SETTING.exec(text)?.groups;
  return groups?.name === undefined ? null : { name: groups.name, value: groups.value ?? '' };
}

/** The indexes of partitions that go with the index of their parent: PostgreSQL does not let them be dropped alone. */
async function attachedIndexes(
  statements: readonly { readonly text: string }[],
  turns: Turns,
): Promise<ReadonlySet<string>> {
  const attached = new Set<string>();
  for (const { text } of statements) {
    const child = INDEX_ATTACH.exec(text)?.groups?.child;
    if (child !== undefined) attached.add(child);
    if (turns.over) await turns.next();
  }
  return attached;
}

/** The entries of primary keys and replica identities, with the attachments of their partitions' indexes. */
async function entriesTheCopyNeeds(statements: readonly Statement[], turns: Turns): Promise<ReadonlySet<number>> {
  const entries = new Set<number>();
  const indexes = new Set<string>();
  for (const { entry, text } of statements) {
    if (turns.over) await turns.next();
    const index = indexOf(PRIMARY_KEY, text) ?? indexOf(REPLICA_IDENTITY, text);
    if (index === null) continue;
    entries.add(entry.number);
    indexes.add(index);
  }
  for (const { entry, text } of statements) {
    if (turns.over) await turns.next();
    const groups = INDEX_ATTACH.exec(text)?.groups;
    if (groups?.parent === undefined || groups.child === undefined) continue;
    if (indexes.has(groups.parent) && indexes.has(groups.child)) entries.add(entry.number);
  }
  return entries;
}

/** The index that a statement on a table names. It lies in the table's schema; both stay quoted as pg_dump wrote them. */
function indexOf(statement: RegExp, text: string): string | null {
  const { table, index } = statement.exec(text)?.groups ?? {};
  if (table === undefined || index === undefined) return null;
  const schema = new RegExp(`^(${IDENTIFIER})\\.`).exec(table)?.[1];
  return schema === undefined ? index : `${schema}.${index}`;
}
