/**
 * One task: tell from a session's settings which schemas a name without one may mean.
 *
 * Forms: PostgreSQL documentation, 5.10.3 (the search path), SET, and set_config.
 */
import type { SessionSettings } from './settings.js';

/** The part of what holds for a user who sets nothing that names depend on. */
export interface DefaultPath {
  /** as `SHOW search_path` has it */
  readonly path: string;
  /** the role that `$user` stands for */
  readonly role: string;
}

const SET_CONFIG = /^SELECT pg_catalog\.set_config\('search_path', (E?)'((?:[^'\\]|''|\\\\)*)', false\)$/;
const ASSIGNMENT = /^SET\s+(?:SESSION\s+)?(?:search_path\s*(?:=|\sTO\s)|SCHEMA\s)\s*(.+)$/is;
/** One name of a list, quoted, bare, or as a string, with the comma or the end behind it. */
const WRITTEN = /\s*(?:"((?:[^"]|"")+)"|'((?:[^']|'')*)'|([\p{L}_][\p{L}\p{N}_$]*))\s*(,|$)/uy;
const ROLES = ['role', 'session_authorization'];

/** The schemas in order; null when they cannot be told from the settings. */
export function searchPathOf(settings: SessionSettings, fallback: DefaultPath): readonly string[] | null {
  const { statements } = settings;
  const set = statements.get('search_path');
  const names = set === undefined ? namesIn(fallback.path) : namesOfStatement(set);
  if (names?.includes('$user') !== true) return names;
  if (ROLES.some((setting) => statements.has(setting))) return null;
  return names.map((name) => (name === '$user' ? fallback.role : name));
}

function namesOfStatement(statement: string): readonly string[] | null {
  const [, escaped, config] = SET_CONFIG.exec(statement) ?? [];
  if (config !== undefined) {
    const text = config.replaceAll("''", "'");
    return namesIn(escaped === '' ? text : text.replaceAll('\\\\', '\\'));
  }
  const [, list] = ASSIGNMENT.exec(statement) ?? [];
  return list === undefined ? null : namesIn(list);
}

function namesIn(list: string): readonly string[] | null {
  const names: string[] = [];
  const pattern = new RegExp(WRITTEN);
  while (pattern.lastIndex < list.length) {
    const match = pattern.exec(list);
    if (match === null) return null;
    const [, quoted, literal, bare = ''] = match;
    names.push(quoted?.replaceAll('""', '"') ?? literal?.replaceAll("''", "'") ?? bare.toLowerCase());
  }
  return names.filter((name) => name !== '');
}
