/** One task: keep the user mappings of a coordinator as they shall be; the passwords in them may have changed. */
import { quoteIdentifier, type Connection } from '../connection.js';
import { userMappingSql } from './servers.js';
import { shardName, type CoordinatorUser } from './spec.js';

/** The options are seen by superusers only; null for others. */
const MAPPINGS = `
  SELECT m.usename AS role, m.srvname AS server, m.umoptions AS options FROM pg_user_mappings m
  WHERE m.srvname ~ '^cutover_shard_[0-9]+$' AND m.usename IS NOT NULL`;

/**
 * Makes the mappings of `users` and drops all others; those that are right stay, since a change makes every session connect anew.
 * In a transaction whose statements are kept out of the server's log.
 */
export async function keepMappings(connection: Connection, users: readonly CoordinatorUser[]): Promise<void> {
  const { rows } = await connection.query<{ role: string; server: string; options: string[] | null }>(MAPPINGS);
  const { rows: who } = await connection.query<{ superuser: boolean }>(
    `SELECT current_setting('is_superuser') = 'on' AS superuser`,
  );
  const bySuperuser = who[0]?.superuser === true;
  const present = new Map(rows.map(({ role, server, options }) => [`${server} ${role}`, { role, server, options }]));
  for (const { role, logins } of users)
    for (const [shard, login] of logins.entries()) {
      const key = `${shardName(shard)} ${role}`;
      const old = present.get(key);
      present.delete(key);
      if (old?.options && sameOptions(old.options, login, bySuperuser)) continue;
      if (old) await dropMapping(connection, role, shardName(shard));
      await connection.query(userMappingSql(role, shard, login, bySuperuser));
    }
  for (const { role, server } of present.values()) await dropMapping(connection, role, server);
}

function sameOptions(
  options: readonly string[],
  login: { readonly user: string; readonly password?: string },
  bySuperuser: boolean,
): boolean {
  const wanted = [
    `user=${login.user}`,
    ...(login.password === undefined ? [] : [`password=${login.password}`]),
    ...(bySuperuser ? ['password_required=false'] : []),
  ];
  return options.length === wanted.length && wanted.every((option) => options.includes(option));
}

async function dropMapping(connection: Connection, role: string, server: string): Promise<void> {
  await connection.query(`DROP USER MAPPING IF EXISTS FOR ${quoteIdentifier(role)} SERVER ${quoteIdentifier(server)}`);
}
