/** One task: tell whether the lease leaves time to ask both servers which side serves, ahead of a move and at its moment. */
import { ROUND_TRIPS_IN_LEASE } from '../../cutover/policy.js';
import type { Connection } from '../connection.js';
import { bothSides, combined, failed, ok } from './check.js';
import type { Finding, PreflightCheck } from './check.js';

/** The fastest counts: one that was held up says nothing of the way. */
const TRIES = 3;

export const lease: PreflightCheck = {
  id: 'lease',
  title: 'The lease is long against the way to both servers',
  run: async (context) => {
    const { leaseMs } = context.config.cutover;
    const findings: Finding[] = [];
    for (const { role, connection } of bothSides(context)) {
      const trip = await roundTrip(connection, role, leaseMs);
      findings.push(
        trip.tooLong === null
          ? ok(`${trip.measured}.`)
          : failed(
              `${trip.tooLong}.`,
              `Set cutover_lease to ${trip.neededMs.toString()} or more, or run the proxy nearer to the ${role}.`,
            ),
      );
    }
    return combined(findings);
  },
};

export interface RoundTrip {
  /** what was measured, as words */
  readonly measured: string;
  /** the shortest lease that this way allows */
  readonly neededMs: number;
  /** why `leaseMs` is too short, as words; null where it is long enough */
  readonly tooLong: string | null;
}

/** Measures the way to a server, by three empty statements at most and by one where that is enough; changes nothing. */
export async function roundTrip(
  connection: Connection,
  role: 'source' | 'destination',
  leaseMs: number,
): Promise<RoundTrip> {
  let fastestMs = Infinity;
  for (let attempt = 0; attempt < TRIES && neededFor(fastestMs) > leaseMs; attempt++) {
    const start = performance.now();
    await connection.query('SELECT');
    fastestMs = Math.min(fastestMs, performance.now() - start);
  }
  const measured = `the ${role} answers after ${fastestMs.toFixed(1)} ms`;
  const neededMs = neededFor(fastestMs);
  const wanted = `cutover_lease is ${leaseMs.toString()} ms and must be ${ROUND_TRIPS_IN_LEASE.toString()} times that`;
  return { measured, neededMs, tooLong: neededMs <= leaseMs ? null : `${measured}: ${wanted}` };
}

function neededFor(tripMs: number): number {
  return Math.ceil(tripMs * ROUND_TRIPS_IN_LEASE);
}
