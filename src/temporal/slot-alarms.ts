/** One task: find the slots of running migrations that are beyond their limits now, by the workflow that owns them. */
import type { CutoverConfig } from '../config/config.js';
import type { Connection } from '../postgres/connection.js';
import { findMigration } from '../postgres/migrations.js';
import { slotsOf, type SlotRow } from './views.js';

export interface SlotAlarm {
  readonly slot: string;
  readonly measure: 'retained WAL' | 'lag';
  readonly bytes: number;
  readonly limitBytes: number;
}

/** The owner's workflow id → what is too much. */
export type SlotAlarms = ReadonlyMap<string, readonly SlotAlarm[]>;

/** 0 = no limit */
type Limits = Pick<CutoverConfig, 'retainedWalLimitBytes' | 'slotLagLimitBytes'>;

/** A side that dies meanwhile is passed over, as one that was gone before. */
export async function slotAlarms(records: readonly Connection[], limits: Limits): Promise<SlotAlarms> {
  const alarms = new Map<string, readonly SlotAlarm[]>();
  for (const connection of records) {
    try {
      const migration = await findMigration(connection);
      if (!migration) continue;
      const { id, owner } = migration;
      const own = `cutover_${id}_`;
      const slots = (await slotsOf(connection)).filter(({ name }) => name.startsWith(own));
      alarms.set(owner, [...(alarms.get(owner) ?? []), ...slots.flatMap((slot) => beyond(slot, limits))]);
    } catch {
      continue;
    }
  }
  return alarms;
}

function beyond({ name: slot, retainedBytes, lagBytes }: SlotRow, limits: Limits): readonly SlotAlarm[] {
  const measures = [
    { slot, measure: 'retained WAL', bytes: retainedBytes ?? 0, limitBytes: limits.retainedWalLimitBytes },
    { slot, measure: 'lag', bytes: lagBytes ?? 0, limitBytes: limits.slotLagLimitBytes },
  ] as const;
  return measures.filter(({ bytes, limitBytes }) => limitBytes > 0 && bytes > limitBytes);
}
