/** One task: SHOW REPLICATION_SLOTS and SHOW TABLE_COPIES. */
import type { CutoverConfig } from '../config/config.js';
import type { AdminResult } from '../proxy/contract.js';
import { formatBytes, formatCount, formatDuration } from './format.js';
import type { SlotRow, TableCopyRow } from './ports.js';
import { bigint, bool, numeric, table, text, type Column } from './table.js';

type SlotLimits = Pick<CutoverConfig, 'retainedWalLimitBytes' | 'slotLagLimitBytes'>;

/** @param limits beyond which `alarm` says so; 0 = no limit */
export function showReplicationSlots(slots: readonly SlotRow[], now: Date, limits: SlotLimits): AdminResult {
  const agoMs = ({ lastTransactionAt: at }: SlotRow): number | null => (at ? now.getTime() - at.getTime() : null);
  const columns: readonly Column<SlotRow>[] = [
    text('host', (slot) => slot.host),
    bigint('port', (slot) => slot.port),
    text('database_name', (slot) => slot.databaseName),
    text('name', (slot) => slot.name),
    text('lsn', (slot) => slot.lsn),
    text('lag', (slot) => (slot.lagBytes === null ? null : formatBytes(slot.lagBytes))),
    bigint('lag_bytes', (slot) => slot.lagBytes),
    bool('copy_data', (slot) => slot.copyData),
    text('last_transaction', (slot) => {
      const ms = agoMs(slot);
      return ms === null ? null : formatDuration(ms);
    }),
    bigint('last_transaction_ms', agoMs),
    bigint('retained_bytes', (slot) => slot.retainedBytes),
    text('alarm', (slot) => alarmOf(slot, limits)),
  ];
  return table(columns, slots);
}

function alarmOf({ retainedBytes, lagBytes, copyData }: SlotRow, limits: SlotLimits): string | null {
  const beyond = (bytes: number | null, limit: number): boolean => limit > 0 && (bytes ?? 0) > limit;
  // The slot of a table's copy goes by itself, and its migration's own keeps the same WAL.
  if (copyData) return null;
  if (beyond(retainedBytes, limits.retainedWalLimitBytes)) return 'retained WAL is beyond cutover_retained_wal_limit';
  return beyond(lagBytes, limits.slotLagLimitBytes) ? 'lag is beyond cutover_slot_lag_limit' : null;
}

export function showTableCopies(copies: readonly TableCopyRow[], now: Date): AdminResult {
  const elapsedMs = (copy: TableCopyRow): number => Math.max(0, now.getTime() - copy.startedAt.getTime());
  const bytesPerSecond = (copy: TableCopyRow): number => (copy.bytes * 1_000) / Math.max(1, elapsedMs(copy));
  const columns: readonly Column<TableCopyRow>[] = [
    text('schema', (copy) => copy.schema),
    text('table', (copy) => copy.table),
    text('status', (copy) => (copy.bytes === 0 ? 'waiting' : 'running')),
    bigint('rows', (copy) => copy.rows),
    text('rows_human', (copy) => formatCount(copy.rows)),
    bigint('bytes', (copy) => copy.bytes),
    text('bytes_human', (copy) => formatBytes(copy.bytes)),
    bigint('bytes_per_sec', bytesPerSecond),
    text('bytes_per_sec_human', (copy) => `${formatBytes(bytesPerSecond(copy))}/s`),
    text('elapsed', (copy) => formatDuration(elapsedMs(copy))),
    bigint('elapsed_ms', elapsedMs),
    text('sql', (copy) => copy.sql),
    text('stream', (copy) => copy.stream),
    numeric('percent', percentOf, 1),
    text('time_left', (copy) => {
      const ms = leftMs(copy, elapsedMs(copy));
      return ms === null ? null : formatDuration(ms);
    }),
    bigint('time_left_ms', (copy) => leftMs(copy, elapsedMs(copy))),
  ];
  return table(columns, copies);
}

/** By the statistics of the source, which may be old: never more than 100. */
function percentOf({ rows, expectedRows }: TableCopyRow): number | null {
  return expectedRows === null ? null : Math.min(100, (100 * rows) / Math.max(1, expectedRows));
}

/** As long as it goes on as fast as until now; null: nobody can tell. */
function leftMs(copy: TableCopyRow, elapsedMs: number): number | null {
  const percent = percentOf(copy);
  return percent === null || percent === 0 ? null : (elapsedMs * (100 - percent)) / percent;
}
