/** One task: the limits of patience keep their order for every lease the configuration takes. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { pauseBetweenAttemptsMs, workflowTaskTimeoutMs } from '../../src/cutover/policy.js';
import { GENERAL } from '../../src/config/schema.js';

/** Every lease that `cutover_lease` may be, in ms. */
const leases = fc.integer({ min: 100, max: 60_000 });

test('the range of leases tried here is the range the configuration takes', () => {
  const accepts = (lease: number): boolean => GENERAL.cutover_lease.safeParse(lease).success;
  expect([99, 100, 60_000, 60_001].map(accepts)).toEqual([false, true, true, false]);
});

test('the nodes have decided before another worker takes the pause over', () => {
  fc.assert(
    fc.property(leases, (leaseMs) => {
      expect(leaseMs).toBeLessThan(0.8 * workflowTaskTimeoutMs(leaseMs));
    }),
  );
});

test('a worker that died in a pause with the default lease is noticed within three seconds and a half', () => {
  expect(workflowTaskTimeoutMs(2_000)).toBeLessThanOrEqual(3_500);
});

test('the workflow task timeout is one that Temporal takes', () => {
  fc.assert(
    fc.property(leases, (leaseMs) => {
      const timeoutMs = workflowTaskTimeoutMs(leaseMs);
      expect(timeoutMs).toBeGreaterThanOrEqual(2_000);
      expect(timeoutMs).toBeLessThanOrEqual(120_000);
      expect(Number.isInteger(timeoutMs)).toBe(true);
    }),
  );
});

test('held clients get through between two attempts', () => {
  fc.assert(
    fc.property(leases, fc.integer({ min: 1, max: 1_000 }), (leaseMs, attempt) => {
      const pauseMs = pauseBetweenAttemptsMs(attempt, leaseMs);
      expect(pauseMs).toBeGreaterThanOrEqual(leaseMs);
      // A workflow's timer is never shorter than a second.
      expect(pauseMs).toBeGreaterThanOrEqual(1_000);
      expect(pauseMs).toBeLessThanOrEqual(60_000);
      expect(pauseBetweenAttemptsMs(attempt + 1, leaseMs)).toBeGreaterThanOrEqual(pauseMs);
    }),
  );
});
