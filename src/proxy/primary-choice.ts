/**
 * One task: choose, among servers whose roles the file leaves open (`role = "auto"`), the one that is the primary, and write it into a
 * configuration.
 *
 * It is chosen among the servers of one cluster only. Which cluster serves is not decided here: that is in the record (docs/protocol.md).
 */
import type { Config, DatabaseEntry } from '../config/config.js';
import { automaticRows } from '../config/replicas.js';
import { unreachable } from '../errors/invariant.js';

/** What one server of the set has said in the latest round. */
export type SaidRole = 'primary' | 'standby' | 'silent';

/** @returns of a row's server; the same for every name and user */
export function serverKey(row: { readonly host: string; readonly port: number }): string {
  return `${row.host}:${row.port.toString()}`;
}

/**
 * The primary after a round.
 *
 * | who says to be the primary | the one before | after |
 * | -------------------------- | -------------- | ----- |
 * | the one before, alone or with others | | stays |
 * | one other | | that one: it was promoted |
 * | several others | | nobody |
 * | nobody | silent | stays: it may only be slow, and whoever needs it waits |
 * | nobody | a standby, or there was none | nobody |
 *
 * Decision 0047 says why two are not judged.
 *
 * @param before null: nobody
 */
export function chosenPrimary(said: ReadonlyMap<string, SaidRole>, before: string | null): string | null {
  const primaries = [...said].filter(([, role]) => role === 'primary').map(([key]) => key);
  const role = before === null ? 'standby' : (said.get(before) ?? 'standby');
  switch (role) {
    case 'primary':
      return before;
    case 'silent':
      return primaries.length === 0 ? before : alone(primaries);
    case 'standby':
      return alone(primaries);
    default:
      return unreachable(role);
  }
}

function alone(primaries: readonly string[]): string | null {
  return primaries.length === 1 ? (primaries[0] ?? null) : null;
}

/**
 * The configuration with a role in the place of each `auto` that the file leaves open. Where nobody is the primary, a row more stands for it:
 * clients wait there.
 *
 * @param primaryOf the server that is the primary among these rows, by serverKey(); null: nobody
 */
export function withRoles(config: Config, primaryOf: (rows: readonly DatabaseEntry[]) => string | null): Config {
  const names = new Set(config.databases.filter(({ role }) => role === 'auto').map(({ name }) => name));
  const open = [...names].map((name) => automaticRows(config.databases, name)).filter(({ length }) => length > 0);
  if (open.length === 0) return config;
  const roles = new Map<DatabaseEntry, DatabaseEntry>();
  const waiting: DatabaseEntry[] = [];
  for (const rows of open) {
    const primary = primaryOf(rows);
    for (const row of rows) {
      const elected = serverKey(row) === primary;
      roles.set(row, elected ? { ...row, role: 'primary', election: 'elected' } : { ...row, role: 'replica' });
    }
    const [first] = rows;
    if (primary === null && first !== undefined) waiting.push({ ...first, role: 'primary', election: 'none' });
  }
  return { ...config, databases: [...config.databases.map((row) => roles.get(row) ?? row), ...waiting] };
}
