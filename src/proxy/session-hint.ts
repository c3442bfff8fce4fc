/** One task: tell which shard, key or role a session has asked for with SET. */
import type { Hint } from '../sharding/router-hints.js';
import type { SessionHint } from '../sharding/statement-verdict.js';
import type { SessionSettings } from './settings.js';

const NAMES = ['shard', 'sharding_key'] as const;
const VALUE = /(?:=|\sTO\s|',)\s*(?:"([^"]*)"|'?((?:[^']|'')*?)'?)(?:, false\))?\s*$/is;

/**
 * The hint in force, ready to be spread into a route's request: what the open transaction has set last, else what the session has.
 *
 * @param open hints of the open transaction, newest last
 */
export function hintOf(settings: SessionSettings, open: readonly SessionHint[]): { hint?: Hint } {
  for (const name of NAMES) {
    const latest = open.findLast((hint) => hint.name === name);
    const value = latest === undefined ? setValue(settings.statements.get(`pgdog.${name}`)) : latest.value;
    if (value !== null && value !== '') return { hint: { name, value } };
  }
  return {};
}

/** The value that a SET, or a set_config() of the startup packet, gives; null where it is not said. */
export function setValue(statement: string | undefined): string | null {
  const match = statement === undefined ? null : VALUE.exec(statement);
  const value = match?.[1] ?? match?.[2];
  return value?.replaceAll("''", "'") ?? null;
}
