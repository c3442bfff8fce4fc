/** One task: hold the handing over of sequences to its rules, each by the value it keeps from being issued twice. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { installRecord, readIdentity, type Identity } from '../../src/postgres/record.js';
import {
  advanceAhead,
  advanceSequences,
  furthest,
  readSequences,
  SEQUENCE_GAP,
  sequenceIncrements,
  setIncrements,
  spread,
} from '../../src/postgres/sequences.js';
import { warmUpSequences } from '../../src/postgres/warm-up.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ source: { major: 17 }, destination: { major: 18 } });
const SCHEMA = `
  CREATE SCHEMA "Odd, ""name";
  CREATE SEQUENCE "Odd, ""name"."{se\\q}";
  CREATE SEQUENCE public.down INCREMENT -2 MINVALUE -9000000000000000000;
  CREATE SEQUENCE public.short MAXVALUE 50;
  CREATE SEQUENCE public.unused;`;
const ODD = `"Odd, ""name"."{se\\q}"`;

let source: Connection;
let destination: Connection;
let side: Identity;

beforeEach(async () => {
  source = await connect(clusters.source.endpoint(await freshDatabase(clusters.source)));
  destination = await connect(clusters.destination.endpoint(await freshDatabase(clusters.destination)));
  await source.query(SCHEMA);
  await destination.query(SCHEMA);
  await installRecord(source, 'open');
  await installRecord(destination, 'closed');
  side = await readIdentity(destination);
  await source.query(`SELECT setval($1, 7), setval('public.down', -9), setval('public.short', 3)`, [ODD]);
});

afterEach(async () => {
  await source.end();
  await destination.end();
});

async function last(sequence: string): Promise<string | null> {
  const { rows } = await destination.query<{ last: string | null }>(
    'SELECT pg_sequence_last_value($1::regclass)::text AS last',
    [sequence],
  );
  return rows[0]?.last ?? null;
}

it('every sequence that was used goes on behind the gap, in its own direction and within its limits', async () => {
  expect(await advanceSequences(destination, side, 1, await readSequences(source))).toBe(3);
  expect(await last(ODD)).toBe((7 + SEQUENCE_GAP).toString());
  expect(await last('public.down')).toBe((-9 - 2 * SEQUENCE_GAP).toString());
  expect(await last('public.short')).toBe('50');
  expect(await last('public.unused')).toBeNull();
});

it('a sequence that is ahead already is not taken back', async () => {
  await destination.query(`SELECT setval($1, 1000000), setval('public.down', -1000000)`, [ODD]);
  expect(await advanceSequences(destination, side, 1, await readSequences(source))).toBe(1);
  expect(await last(ODD)).toBe('1000000');
  expect(await last('public.down')).toBe('-1000000');
});

it('a side that is open, or closed by a later epoch, keeps its sequences', async () => {
  const values = await readSequences(source);
  await destination.query(`UPDATE cutover.fence SET epoch = 2, state = 'ready'`);
  expect(await advanceSequences(destination, side, 1, values)).toBe(0);
  await destination.query(`UPDATE cutover.fence SET state = 'open'`);
  expect(await advanceSequences(destination, side, 2, values)).toBe(0);
  expect(await last(ODD)).toBeNull();
});

it.each(['source', 'destination'] as const)(
  'what the role may not set at the %s is named ahead of the pause',
  async (where) => {
    const asked = where === 'source' ? source : destination;
    await asked.query('CREATE ROLE reader; GRANT pg_read_all_data TO reader');
    try {
      await asked.query('SET ROLE reader');
      const warmedUp = where === 'source' ? warmUpSequences(source) : warmUpSequences(destination, side);
      await expect(warmedUp).rejects.toMatchObject({ code: 'sequence_withheld' });
      await expect(warmedUp).rejects.toThrow(/may not read and set .*public\.down, public\.short, public\.unused/);
    } finally {
      await asked.query('RESET ROLE; DROP ROLE reader');
    }
  },
);

it('a sequence whose value the role may not read is never passed over in the pause', async () => {
  await destination.query(`SELECT setval('public.short', 3); CREATE ROLE blind`);
  try {
    await destination.query('SET ROLE blind');
    await expect(readSequences(destination)).rejects.toMatchObject({ code: 'sequence_withheld' });
  } finally {
    await destination.query('RESET ROLE; DROP ROLE blind');
  }
});

it('a warm-up moves nothing, and values issued after it are handed over', async () => {
  await warmUpSequences(source);
  await warmUpSequences(destination, side);
  expect(await last(ODD)).toBeNull();
  await source.query(`SELECT setval($1, 8), nextval('public.unused')`, [ODD]);
  expect(await advanceSequences(destination, side, 1, await readSequences(source))).toBe(4);
  expect(await last(ODD)).toBe((8 + SEQUENCE_GAP).toString());
  expect(await last('public.unused')).toBe((1 + SEQUENCE_GAP).toString());
});

it('what was given ahead of the pause is given again only where values were issued since', async () => {
  await advanceAhead(destination, side, 0, await readSequences(source));
  expect(await last(ODD)).toBe((7 + SEQUENCE_GAP).toString());
  await source.query(`SELECT nextval($1), nextval('public.unused')`, [ODD]);
  expect(await advanceSequences(destination, side, 1, await readSequences(source))).toBe(2);
  expect(await last(ODD)).toBe((8 + SEQUENCE_GAP).toString());
  expect(await last('public.unused')).toBe((1 + SEQUENCE_GAP).toString());
  expect(await last('public.short')).toBe('50');
});

it('a destination connected anew is given everything: what it was given ahead may be gone with the server', async () => {
  await advanceAhead(destination, side, 0, await readSequences(source));
  await destination.query(`SELECT setval('public.short', 3)`);
  const values = await readSequences(source);
  expect(await advanceSequences(destination, side, 1, values)).toBe(0);
  const anew = await connect(clusters.destination.endpoint(destination.database ?? ''));
  try {
    expect(await advanceSequences(anew, side, 1, values)).toBe(1);
  } finally {
    await anew.end();
  }
  expect(await last('public.short')).toBe('50');
});

it('a side that took nothing ahead of the pause is given everything in it', async () => {
  await destination.query(`UPDATE cutover.fence SET epoch = 1, state = 'ready'`);
  await advanceAhead(destination, side, 0, await readSequences(source));
  expect(await last(ODD)).toBeNull();
  expect(await advanceSequences(destination, side, 1, await readSequences(source))).toBe(3);
});

it('shards of one side never draw the same value, nor one that the source drew, and what they drew is handed back', async () => {
  const counting = [ODD, 'public.down', 'public.unused'];
  const increments = await sequenceIncrements(source);
  const shards = await Promise.all(
    [0, 1, 2].map(async () => connect(clusters.destination.endpoint(await freshDatabase(clusters.destination)))),
  );
  try {
    const drawn = new Map(counting.map((name) => [name, new Set<string>()]));
    for (const [number, shard] of shards.entries()) {
      await shard.query(SCHEMA);
      await installRecord(shard, 'closed');
      await setIncrements(shard, increments, 1, { number, of: shards.length });
      await setIncrements(shard, increments, 1, { number, of: shards.length });
      const own = await sequenceIncrements(shard);
      expect(own).toMatchObject({ [ODD]: '3', 'public.down': '-6', 'public.unused': '3' });
      const values = spread(await readSequences(source), own, number, shards.length);
      await advanceSequences(shard, await readIdentity(shard), 1, values);
      for (const name of counting)
        for (let draw = 0; draw < 4; draw++) {
          const { rows } = await shard.query<{ value: string }>('SELECT nextval($1)::text AS value', [name]);
          drawn.get(name)?.add(rows[0]?.value ?? '');
        }
    }
    for (const name of counting) expect(drawn.get(name)?.size, name).toBe(4 * shards.length);
    expect([...(drawn.get(ODD) ?? [])].every((value) => Number(value) > 7)).toBe(true);
    expect([...(drawn.get('public.down') ?? [])].every((value) => Number(value) < -9)).toBe(true);
    const back = furthest(await Promise.all(shards.map(readSequences)), await sequenceIncrements(source));
    for (const name of [ODD, 'public.unused'])
      expect(Number(back[name])).toBeGreaterThan(Math.max(...[...(drawn.get(name) ?? [])].map(Number)));
    expect(Number(back['public.down'])).toBeLessThan(Math.min(...[...(drawn.get('public.down') ?? [])].map(Number)));
  } finally {
    await Promise.all(shards.map((shard) => shard.end()));
  }
});
