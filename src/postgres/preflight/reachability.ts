/**
 * One task: the checks that each server reaches the other, tried by the servers themselves.
 *
 * CREATE SUBSCRIPTION with `connect = true, create_slot = false` logs in at the publisher and reads there (PostgreSQL
 * documentation, CREATE SUBSCRIPTION). In a transaction that is rolled back it leaves nothing on either side.
 */
import { randomBytes } from 'node:crypto';
import { messageOf } from '../../errors/errors.js';
import { quoteIdentifier, quoteLiteral } from '../connection.js';
import { addressOf, conninfoOf, type Endpoint } from '../endpoint.js';
import { QUIET_SETTINGS } from '../quiet.js';
import { failed, ok, rowOf, warning } from './check.js';
import type { Finding, PreflightCheck, PreflightSide } from './check.js';

const CONNECT_TIMEOUT_SECONDS = 5;
const PROBE = 'cutover_preflight';

const QUIET = Object.entries(QUIET_SETTINGS)
  .map(([name, value]) => `SET LOCAL ${name} = ${quoteLiteral(value)}`)
  .join('; ');

export const reachSource: PreflightCheck = {
  id: 'destination-reaches-source',
  title: 'The destination reaches the source',
  run: ({ source, destination }) => reach(destination, source, 'destination', 'source'),
};

export const reachDestination: PreflightCheck = {
  id: 'source-reaches-destination',
  title: 'The source reaches the destination',
  run: ({ source, destination }) => reach(source, destination, 'source', 'destination'),
};

interface Rights {
  readonly superuser: boolean;
  readonly subscribes: boolean;
}

const RIGHTS = `
  SELECT current_setting('is_superuser') = 'on' AS superuser,
    current_setting('is_superuser') = 'on'
      OR coalesce((SELECT pg_has_role(p.oid, 'USAGE') FROM pg_roles p WHERE p.rolname = 'pg_create_subscription'), false)
        AND has_database_privilege(current_database(), 'CREATE') AS subscribes`;

async function reach(from: PreflightSide, to: PreflightSide, fromRole: string, toRole: string): Promise<Finding> {
  const rights = await rowOf<Rights>(from, RIGHTS);
  const where = `the ${toRole} at ${addressOf(to.endpoint)}`;
  if (!rights.subscribes)
    return warning(
      `Not tried: the schema_admin of the ${fromRole} may not create subscriptions.`,
      `See that the server of the ${fromRole} reaches ${where}.`,
    );
  // A role that cannot keep a statement out of the log must not send a password in it: a refused login is an answer too.
  const password = rights.superuser ? to.endpoint.password : randomBytes(12).toString('hex');
  const problem = await probe(from, { ...to.endpoint, ...(password === undefined ? {} : { password }) }, rights);
  if (problem === null) return ok(`It does, as ${addressOf(to.endpoint)}.`);
  if (!rights.superuser && problem.includes('password authentication failed'))
    return ok(`It does, as ${addressOf(to.endpoint)}; the login itself was not tried.`);
  return failed(
    `The ${fromRole}'s server does not reach ${where}: ${problem}.`,
    `Open the way from the ${fromRole}'s server to that address (network, listen_addresses, pg_hba.conf), or name an address in pgdog.toml that works from there too.`,
  );
}

/** Null when the server `from` logged in at `to`; otherwise why it did not, without the connection string. */
async function probe(from: PreflightSide, to: Endpoint, rights: Rights): Promise<string | null> {
  const { connection } = from;
  const subscription = quoteIdentifier(`${PROBE}_${randomBytes(4).toString('hex')}`);
  const options = 'connect = true, create_slot = false, enabled = false, copy_data = false, slot_name = NONE';
  const statement = `CREATE SUBSCRIPTION ${subscription} CONNECTION ${quoteLiteral(conninfoOf(to, { application_name: PROBE, connect_timeout: CONNECT_TIMEOUT_SECONDS.toString() }))}
    PUBLICATION ${quoteIdentifier(PROBE)} WITH (${options})`;
  await connection.query('BEGIN');
  try {
    if (rights.superuser) await connection.query(QUIET);
    // The publication does not exist, and a warning says so.
    await connection.query(`SET LOCAL client_min_messages = error`);
    await connection.query(statement);
    return null;
  } catch (error) {
    return withoutSecret(messageOf(error), to.password);
  } finally {
    await connection.query('ROLLBACK');
  }
}

function withoutSecret(text: string, secret: string | undefined): string {
  const plain = text.trim().replaceAll(/\s*\n\s*/g, ' ');
  return secret === undefined || secret === '' ? plain : plain.replaceAll(secret, '…');
}
