/**
 * One task: know which settings a session has changed, and the SQL that brings a server from one session's to another's.
 *
 * A value is kept as the statement that sets it, in the client's own words, so that nothing has to be quoted anew.
 */
import { quoteLiteral } from '../postgres/connection.js';

/** Most settings one session may carry from server to server; more are not tracked. */
const SETTINGS_MAX = 200;
const STATEMENT_CHARACTERS_MAX = 8_192;

export type SettingChange =
  | { readonly kind: 'set'; readonly name: string; readonly statement: string }
  | { readonly kind: 'reset'; readonly name: string }
  /** RESET ALL, and DISCARD ALL with `roles` */
  | { readonly kind: 'resetAll'; readonly roles: boolean };

/** RESET ALL leaves these alone (PostgreSQL documentation, RESET; guc_tables.c: GUC_NO_RESET_ALL). */
const ROLES = ['session_authorization', 'role'];

/** What a text means when it is prepared depends on these: names, literals of times and intervals, characters. */
const MEANING = new Set([
  ...['search_path', 'role', 'session_authorization', 'timezone', 'datestyle', 'intervalstyle', 'client_encoding'],
  ...['standard_conforming_strings', 'transform_null_equals', 'array_nulls', 'xmloption', 'lc_monetary', 'lc_numeric'],
]);
/** What a client says at login whose encoding is the usual one. */
const IN_UTF8 = setToValue('client_encoding', 'UTF8');

/** The settings of a session that differ from what its server starts with. Immutable. */
export class SessionSettings {
  static readonly NONE = new SessionSettings(new Map());
  readonly statements: ReadonlyMap<string, string>;
  /** equal keys = equal settings */
  readonly key: string;
  /** equal = a text that is prepared means the same */
  readonly meaning: string;

  private constructor(statements: ReadonlyMap<string, string>) {
    this.statements = statements;
    const sorted = [...statements].sort(([left], [right]) => (left < right ? -1 : 1));
    this.key = JSON.stringify(sorted);
    const meaning = sorted.filter(([name, statement]) => MEANING.has(name) && statement !== IN_UTF8.statement);
    this.meaning = meaning.length === 0 ? '' : JSON.stringify(meaning);
  }

  /** From name and value pairs in the form a startup packet has them. */
  static fromValues(values: Iterable<readonly [string, string]>): SessionSettings {
    const changes = [...values].map(([name, value]) => setToValue(name, value));
    return SessionSettings.NONE.with(changes, SessionSettings.NONE);
  }

  /** @param initial what RESET goes back to: the settings of the startup packet */
  with(changes: readonly SettingChange[], initial: SessionSettings): SessionSettings {
    const next = new Map(this.statements);
    for (const change of changes) {
      switch (change.kind) {
        case 'set':
          if (next.size < SETTINGS_MAX && change.statement.length <= STATEMENT_CHARACTERS_MAX) {
            next.set(change.name, change.statement);
          }
          break;
        case 'reset':
          restore(next, change.name, initial);
          break;
        case 'resetAll':
          for (const name of [...next.keys(), ...initial.statements.keys()]) {
            if (change.roles || !ROLES.includes(name)) restore(next, name, initial);
          }
          break;
      }
    }
    return new SessionSettings(next);
  }
}

function restore(settings: Map<string, string>, name: string, initial: SessionSettings): void {
  const first = initial.statements.get(name);
  if (first === undefined) settings.delete(name);
  else settings.set(name, first);
}

/** The change that gives `name` a value in the form SHOW and the startup packet use. */
export function setToValue(name: string, value: string): Extract<SettingChange, { kind: 'set' }> {
  const statement = `SELECT pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, false)`;
  return { kind: 'set', name: name.toLowerCase(), statement };
}

/**
 * The SQL that turns the settings of a server from `from` into `to`, as one text; empty when there is nothing to do.
 *
 * @param from null when it is not known what was set: then everything is reset first
 */
export function differenceSql(from: SessionSettings | null, to: SessionSettings): string {
  if (from?.key === to.key) return '';
  const statements: string[] = [];
  if (from === null) statements.push('RESET SESSION AUTHORIZATION', 'RESET ALL');
  const gone = from === null ? [] : [...from.statements.keys()].filter((name) => !to.statements.has(name));
  for (const name of rolesFirst(gone)) statements.push(`RESET ${quoteSetting(name)}`);
  const set = [...to.statements].filter(([name, statement]) => from?.statements.get(name) !== statement);
  const names = set.map(([name]) => name);
  // A role last: it may not be allowed to set what comes before it.
  for (const name of rolesFirst(names).reverse()) statements.push(to.statements.get(name) ?? '');
  return statements.join(';');
}

function rolesFirst(names: readonly string[]): string[] {
  return [...names].sort((left, right) => ROLES.indexOf(right) - ROLES.indexOf(left));
}

function quoteSetting(name: string): string {
  return name
    .split('.')
    .map((part) => `"${part.replaceAll('"', '""')}"`)
    .join('.');
}

/** True when the difference is a single setting that cannot be refused, so that a statement may follow without waiting. */
export function cannotFail(from: SessionSettings | null, to: SessionSettings): boolean {
  if (from === null) return false;
  const names = new Set([...from.statements.keys(), ...to.statements.keys()]);
  for (const name of names) {
    if (name !== 'application_name' && from.statements.get(name) !== to.statements.get(name)) return false;
  }
  return true;
}
