/** One task: see every check of preflight find on real servers what it is there to find, and nothing on healthy ones. */
import { afterEach, expect, it } from 'vitest';
import { preflight } from '../../src/postgres/preflight/preflight.js';
import { useClusters } from '../support/clusters.js';
import { sidesOf, type Sides, type SidesOptions } from './preflight-setup.js';

const clusters = useClusters({
  source: { major: 17, auth: 'scram' },
  destination: { major: 18, auth: 'scram' },
});

const open: Sides[] = [];
async function sides(options: SidesOptions = {}): Promise<Sides> {
  const made = await sidesOf(clusters.source, clusters.destination, options);
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const one of open.splice(0)) await one.end();
});

it('finds nothing wrong with two healthy servers', async () => {
  const both = await sides();
  await both.onSource('CREATE TABLE item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)');
  const results = await preflight(both);
  expect(results.filter((r) => r.verdict !== 'ok')).toEqual([]);
});
