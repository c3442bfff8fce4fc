/** One task: the audit trail reads from top to bottom, also where events were written in one go. */
import { expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.js';
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
