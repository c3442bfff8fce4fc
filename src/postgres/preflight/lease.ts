/** One task: the check that the lease leaves time to ask both servers which side serves. */
import { ROUND_TRIPS_IN_LEASE } from '../../cutover/policy.js';
import { bothSides, combined, failed, ok } from './check.js';
import type { Finding, PreflightCheck, PreflightSide } from './check.js';

/** The fastest counts: one that was held up says nothing of the way. */
const TRIES = 3;

export const lease: PreflightCheck = {
  id: 'lease',
  title: 'The lease is long against the way to both servers',
  run: async (context) => {
    const { leaseMs } = context.config.cutover;
    const findings: Finding[] = [];
    for (const side of bothSides(context)) findings.push(judged(side.role, await roundTripMs(side), leaseMs));
    return combined(findings);
  },
};

function judged(role: string, tripMs: number, leaseMs: number): Finding {
  const trip = `the ${role} answers after ${tripMs.toFixed(1)} ms`;
  const neededMs = Math.ceil(tripMs * ROUND_TRIPS_IN_LEASE);
  if (neededMs <= leaseMs) return ok(`${trip}.`);
  return failed(
    `${trip}: cutover_lease is ${leaseMs.toString()} ms and must be ${ROUND_TRIPS_IN_LEASE.toString()} times that.`,
    `Set cutover_lease to ${neededMs.toString()} or more, or run the proxy nearer to the ${role}.`,
  );
}

async function roundTripMs({ connection }: PreflightSide): Promise<number> {
  let fastest = Infinity;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const start = performance.now();
    await connection.query('SELECT');
    fastest = Math.min(fastest, performance.now() - start);
  }
  return fastest;
}
