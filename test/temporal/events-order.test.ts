/** One task: the audit trail reads from top to bottom, also where events were written in one go, and what is left out is the oldest. */
import { expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.js';
import { newestStories } from '../../src/postgres/events.js';
import { installRecord, noteEvents } from '../../src/postgres/record.js';
import { eventsOf } from '../../src/temporal/views.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ source: { major: 17 } });

it('events written together are told in the order of their stream, the latest of all within the limit', async () => {
  const database = await freshDatabase(clusters.source);
  await withConnection(clusters.source.endpoint(database), async (connection) => {
    await installRecord(connection, 'open');
    const events = [0, 1, 2, 3].map((sequence) => ({ sequence, type: 'PhaseEntered', data: {} }));
    await noteEvents(connection, 'reshard-1', [...events].reverse());
    // One moment for all of them, as the clock of a busy machine may well give.
    await connection.query(`UPDATE cutover.event SET at = '2026-11-24 20:00:00+00'`);
    const told = await eventsOf([connection, connection], null, 10);
    expect(told.map((event) => event.sequence)).toEqual([0, 1, 2, 3]);
    const latest = await eventsOf([connection], null, 2);
    expect(latest.map((event) => event.sequence)).toEqual([2, 3]);
  });
});

it('of many tasks the newest are told, whatever they are called, each from its beginning to its end', async () => {
  const database = await freshDatabase(clusters.source);
  await withConnection(clusters.source.endpoint(database), async (connection) => {
    await installRecord(connection, 'open');
    const filled = `INSERT INTO cutover.event (stream, sequence, type, at, data)
      SELECT $1, i, CASE i WHEN 0 THEN 'TaskStarted' WHEN $2 THEN 'TaskFinished' ELSE 'PhaseEntered' END,
        timestamptz '2026-11-01' + make_interval(days => $3, secs => i), '{}' FROM generate_series(0, $2) i`;
    for (const [stream, last, day] of [
      ['copy_data-oldest', 2, 1],
      ['reshard-of-months', 5_000, 3],
      ['verify-newest', 2, 4],
      ['abc_1@7', 2, 5],
    ])
      await connection.query(filled, [stream, last, day]);
    const told = await newestStories(connection, 2);
    expect([...new Set(told.map((e) => e.stream))]).toEqual(['reshard-of-months', 'verify-newest']);
    for (const stream of ['reshard-of-months', 'verify-newest']) {
      const story = told.filter((e) => e.stream === stream);
      expect([story[0]?.type, story.at(-1)?.type]).toEqual(['TaskStarted', 'TaskFinished']);
    }
    expect(told.length).toBeLessThan(300);
  });
});
