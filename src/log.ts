/** One task: the log of the program: one line an event to standard error, as JSON or for reading. */
import pino, { type Logger as Pino } from 'pino';
import type { LoggingConfig } from './config/config.js';
import { STANDARD_ERROR } from './line-writer.js';

export interface LogOptions {
  /** given on the command line: wins over the files */
  readonly level: string | undefined;
  /** which of several workers writes */
  readonly worker?: number;
}

export class ProgramLog {
  readonly logger: Pino;
  readonly #level: string | undefined;
  #format: LoggingConfig['format'] = 'json';

  constructor({ level, worker }: LogOptions) {
    this.#level = level;
    const base = worker === undefined ? null : { worker };
    const write = (line: string): void => {
      STANDARD_ERROR.write(this.#format === 'text' ? readable(line) : line);
    };
    this.logger = pino({ level: level ?? 'info', base, timestamp: pino.stdTimeFunctions.isoTime }, { write });
  }

  /** To be called with each configuration that is put into force. */
  apply({ format, level }: LoggingConfig): void {
    this.#format = format;
    this.logger.level = this.#level ?? (level === 'off' ? 'silent' : level);
  }
}

/** `2026-11-29T20:00:00.000Z INFO client connected client=7 user=app`: the same words as the JSON, and like it always one line. */
export function readable(json: string): string {
  const { level, time, msg, ...fields } = JSON.parse(json) as Readonly<Record<string, unknown>>;
  const label = pino.levels.labels[Number(level)] ?? 'info';
  const pairs = Object.entries(fields).map(([name, value]) => ` ${name}=${readableValue(value)}`);
  return `${String(time)} ${label.toUpperCase()} ${inOneLine(String(msg))}${pairs.join('')}\n`;
}

function readableValue(value: unknown): string {
  return typeof value === 'string' && /^[\w.:/@-]+$/.test(value) ? value : JSON.stringify(value);
}

/** A sentence with a control character in it, as a line end, must not look like another line. */
function inOneLine(text: string): string {
  return /\p{Cc}/u.test(text) ? JSON.stringify(text) : text;
}
