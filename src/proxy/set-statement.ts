/**
 * One task: read from SQL text which settings it changes for the session.
 *
 * Only called once a server has confirmed a SET, RESET or DISCARD ALL, so the text is known to be valid SQL.
 * Forms: PostgreSQL documentation, SET, RESET, SET ROLE, SET SESSION AUTHORIZATION, SET TRANSACTION, DISCARD.
 */
import type { SettingChange } from './settings.js';

const TEXT_CHARACTERS_MAX = 65_536;
const NAME = String.raw`((?:"[^"]+"|[\w$]+)(?:\.(?:"[^"]+"|[\w$]+))*)`;
const ASSIGNMENT = new RegExp(String.raw`^SET\s+(?:SESSION\s+)?${NAME}\s*(?:=|\sTO\s)\s*(.+)$`, 'is');
const RESET_ONE = new RegExp(String.raw`^RESET\s+${NAME}$`, 'i');
const TOKEN = /'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$[\s\S]*?\$\1\$|--[^\n]*|\/\*[\s\S]*?\*\/|;/g;

/** Forms of SET that are no assignment, and the name of the setting behind each. */
const SPECIAL: readonly (readonly [RegExp, string])[] = [
  [/^SET\s+(?:SESSION\s+)?TIME\s+ZONE\s+(.+)$/is, 'timezone'],
  [/^SET\s+(?:SESSION\s+)?NAMES\b(.*)$/is, 'client_encoding'],
  [/^SET\s+(?:SESSION\s+)?SCHEMA\s+(.+)$/is, 'search_path'],
  [/^SET\s+(?:SESSION\s+)?SESSION\s+AUTHORIZATION\s+(.+)$/is, 'session_authorization'],
  [/^SET\s+(?:SESSION\s+)?ROLE\s+(.+)$/is, 'role'],
  [/^SET\s+(?:SESSION\s+)?XML\s+OPTION\s+(.+)$/is, 'xmloption'],
];

const CHARACTERISTICS: readonly (readonly [RegExp, string, (value: string) => string])[] = [
  [
    /ISOLATION\s+LEVEL\s+(SERIALIZABLE|REPEATABLE\s+READ|READ\s+COMMITTED|READ\s+UNCOMMITTED)/i,
    'default_transaction_isolation',
    quoted,
  ],
  [/(READ\s+ONLY|READ\s+WRITE)/i, 'default_transaction_read_only', (value) => (/ONLY/i.test(value) ? 'on' : 'off')],
  [/((?:NOT\s+)?DEFERRABLE)/i, 'default_transaction_deferrable', (value) => (/NOT/i.test(value) ? 'off' : 'on')],
];

function quoted(level: string): string {
  return `'${level.toLowerCase().replaceAll(/\s+/g, ' ')}'`;
}

/**
 * The changes a text makes, in order; SET LOCAL and SET TRANSACTION make none.
 *
 * @returns null when the text is too long to be read
 */
export function settingChanges(sql: string): readonly SettingChange[] | null {
  if (sql.length > TEXT_CHARACTERS_MAX) return null;
  return statementsOf(sql).flatMap(changesOf);
}

/** Cuts a text at the semicolons that end statements, and takes comments out. */
export function statementsOf(sql: string): string[] {
  const statements: string[] = [];
  let statement = '';
  let at = 0;
  for (const match of sql.matchAll(TOKEN)) {
    const [token] = match;
    statement += sql.slice(at, match.index);
    at = match.index + token.length;
    if (token === ';') {
      statements.push(statement);
      statement = '';
    } else {
      statement += token.startsWith('--') || token.startsWith('/*') ? ' ' : token;
    }
  }
  statements.push(statement + sql.slice(at));
  return statements.map((text) => text.trim()).filter((text) => text !== '');
}

function changesOf(statement: string): readonly SettingChange[] {
  if (/^DISCARD\s+ALL$/i.test(statement)) return [{ kind: 'resetAll', roles: true }];
  if (/^RESET\b/i.test(statement)) return resetOf(statement);
  if (!/^SET\b/i.test(statement) || /^SET\s+(LOCAL|TRANSACTION|CONSTRAINTS)\b/i.test(statement)) return [];
  const characteristics = /^SET\s+SESSION\s+CHARACTERISTICS\s+AS\s+TRANSACTION\s+(.+)$/is.exec(statement);
  if (characteristics !== null) return characteristicsOf(characteristics[1] ?? '');
  for (const [form, name] of SPECIAL) {
    const match = form.exec(statement);
    if (match !== null) return [change(name, match[1] ?? '', statement)];
  }
  const assignment = ASSIGNMENT.exec(statement);
  return assignment === null ? [] : [change(settingName(assignment[1] ?? ''), assignment[2] ?? '', statement)];
}

function change(name: string, value: string, statement: string): SettingChange {
  const toDefault = /^\s*(DEFAULT|LOCAL)?\s*$/i.test(value);
  return toDefault ? { kind: 'reset', name } : { kind: 'set', name, statement };
}

function resetOf(statement: string): readonly SettingChange[] {
  if (/^RESET\s+ALL$/i.test(statement)) return [{ kind: 'resetAll', roles: false }];
  if (/^RESET\s+TIME\s+ZONE$/i.test(statement)) return [{ kind: 'reset', name: 'timezone' }];
  if (/^RESET\s+SESSION\s+AUTHORIZATION$/i.test(statement)) return [{ kind: 'reset', name: 'session_authorization' }];
  const match = RESET_ONE.exec(statement);
  return match === null ? [] : [{ kind: 'reset', name: settingName(match[1] ?? '') }];
}

function characteristicsOf(modes: string): readonly SettingChange[] {
  return CHARACTERISTICS.flatMap(([form, name, valueOf]): readonly SettingChange[] => {
    const value = form.exec(modes)?.[1];
    return value === undefined ? [] : [{ kind: 'set', name, statement: `SET ${name} = ${valueOf(value)}` }];
  });
}

function settingName(written: string): string {
  return written.replaceAll('"', '').toLowerCase();
}
