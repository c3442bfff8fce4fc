/** One task: write values the way PgDog's admin database writes them. */

/** `2026-11-24 19:30:42.123 +00:00`, in the local time zone. */
export function formatTime(time: Date): string {
  const date = [time.getFullYear(), padded(time.getMonth() + 1, 2), padded(time.getDate(), 2)].join('-');
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => padded(part, 2)).join(':');
  const offsetMinutes = -time.getTimezoneOffset();
  const distance = Math.abs(offsetMinutes);
  const zone = `${padded(Math.floor(distance / 60), 2)}:${padded(distance % 60, 2)}`;
  return `${date} ${clock}.${padded(time.getMilliseconds(), 3)} ${offsetMinutes < 0 ? '-' : '+'}${zone}`;
}

/** `01:02:03:004`, with `2d ` before it from a day on. */
export function formatDuration(durationMs: number): string {
  const ms = Math.max(0, Math.round(durationMs));
  const days = Math.floor(ms / 86_400_000);
  const clock = [Math.floor(ms / 3_600_000) % 24, Math.floor(ms / 60_000) % 60, Math.floor(ms / 1_000) % 60];
  const text = [...clock.map((part) => padded(part, 2)), padded(ms % 1_000, 3)].join(':');
  return days === 0 ? text : `${days.toString()}d ${text}`;
}

/** `12.34 MB`, in steps of 1024. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  const step = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** step).toFixed(2)} ${units[step] ?? 'B'}`;
}

/** `1,234,567` */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

function padded(value: number, length: number): string {
  return value.toString().padStart(length, '0');
}
