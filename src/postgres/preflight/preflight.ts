/**
 * One task: run every check before a move touches anything.
 *
 * The table below is the whole of it, in the order a person wants to read: who the servers are, whether they can do it,
 * what of the schema cannot move, who may do what, and whether this is a good moment.
 */
import type { Check } from '../../cutover/contract.js';
import { messageOf } from '../../errors/errors.js';
import { longTransactions, maintenance, preparedTransactions } from './activity.js';
import {
  connectionCapacity,
  copyCapacity,
  lockTable,
  originCapacity,
  senderCapacity,
  slotCapacity,
  walDisk,
  workerCapacity,
} from './capacity.js';
import { failed, warning, type Finding, type PreflightCheck, type PreflightContext } from './check.js';
import { collationVersions, encoding, locale } from './collation.js';
import { generatedColumns, identityColumns } from './columns.js';
import { eventTriggers, foreignServers, largeObjects, materializedViews, tablespaces } from './objects.js';
import { newTables } from './new-tables.js';
import { privileges } from './privileges.js';
import { lease } from './lease.js';
import { reachDestination, reachSource } from './reachability.js';
import { databaseSettings, extensions, roles, users } from './roles.js';
import {
  cutoverSchema,
  durability,
  primaries,
  sameDatabase,
  sourceIsSubscriber,
  versions,
  walLevel,
} from './servers.js';
import { destinationEmpty, publication, replicaIdentity, unloggedTables } from './tables.js';

export type { PreflightContext, PreflightSide } from './check.js';

export const CHECKS: readonly PreflightCheck[] = [
  versions,
  primaries,
  sameDatabase,
  walLevel,
  durability,
  replicaIdentity,
  publication,
  slotCapacity,
  senderCapacity,
  workerCapacity,
  copyCapacity,
  originCapacity,
  connectionCapacity,
  lockTable,
  walDisk,
  encoding,
  locale,
  collationVersions,
  unloggedTables,
  largeObjects,
  generatedColumns,
  identityColumns,
  materializedViews,
  foreignServers,
  eventTriggers,
  tablespaces,
  sourceIsSubscriber,
  cutoverSchema,
  destinationEmpty,
  extensions,
  roles,
  users,
  databaseSettings,
  privileges,
  newTables,
  reachSource,
  reachDestination,
  lease,
  longTransactions,
  preparedTransactions,
  maintenance,
];

/** A check must not queue behind somebody's ALTER TABLE, and others behind it. */
const LIMITS = `SET lock_timeout = '2s'; SET statement_timeout = '15s'`;
/** insufficient_privilege (PostgreSQL documentation, Appendix A) */
const INSUFFICIENT_PRIVILEGE = '42501';

/**
 * Every check with its verdict, in the order of the table. Changes nothing on either side, and a check that fails does not
 * keep the others from running. The results are plain JSON without secrets.
 */
export async function preflight(context: PreflightContext): Promise<readonly Check[]> {
  const connections = [context.source.connection, context.destination.connection];
  for (const connection of connections) await connection.query(LIMITS);
  const results: Check[] = [];
  for (const check of CHECKS) results.push(await runCheck(check, context));
  for (const connection of connections) await connection.query('RESET lock_timeout; RESET statement_timeout');
  return results;
}

/** One check; what it throws becomes its finding. */
export async function runCheck(check: PreflightCheck, context: PreflightContext): Promise<Check> {
  const { id, title } = check;
  try {
    return { id, title, ...(await check.run(context)) };
  } catch (error) {
    return { id, title, ...unknown(error) };
  }
}

function unknown(error: unknown): Finding {
  const detail = `This could not be checked: ${messageOf(error)}.`;
  return (error as { code?: unknown }).code === INSUFFICIENT_PRIVILEGE
    ? warning(detail, 'GRANT pg_monitor to the schema_admin, or check this yourself.')
    : failed(detail, 'Correct what the server says and try again.');
}
