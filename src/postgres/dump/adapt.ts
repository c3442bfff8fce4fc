/**
 * One task: say what an older PostgreSQL does not know of what pg_dump 18 writes.
 *
 * Only what can be left out without changing what the schema means. Everything else (a virtual generated column, say) is
 * for the destination to refuse, in its own words.
 */
import type { DumpEntry } from './statements.js';

/** `server_version_num` of the first major that knows the setting. */
const SETTING_SINCE: Readonly<Record<string, number>> = { transaction_timeout: 170000 };
/** PostgreSQL documentation, 17, release notes: the privilege MAINTAIN. */
const MAINTAIN_SINCE = 170000;
const GRANT = /^(?<verb>GRANT|REVOKE) (?<privileges>[A-Z, ]+) ON /;

export function knowsSetting(version: number, name: string): boolean {
  return version >= (SETTING_SINCE[name] ?? 0);
}

/** The statement for a server of `version`; null when nothing of it is left. */
export function adaptText(text: string, entry: DumpEntry, version: number): string | null {
  if (version >= MAINTAIN_SINCE || (entry.type !== 'ACL' && entry.type !== 'DEFAULT ACL')) return text;
  const privileges = GRANT.exec(text)?.groups?.privileges;
  if (!privileges?.includes('MAINTAIN')) return text;
  const known = privileges.split(',').filter((privilege) => privilege.trim() !== 'MAINTAIN');
  return known.length === 0 ? null : text.replace(privileges, known.join(','));
}
