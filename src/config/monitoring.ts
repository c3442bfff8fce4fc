/** One task: the keys of `[general]` by which the program is watched: its log, its health and its metrics. */
import type { LoggingConfig, LogVerbosity, MonitoringConfig } from './config.js';
import type { GeneralKeys } from './schema.js';

const LOOPBACK = '127.0.0.1';
const LEVELS: ReadonlySet<string> = new Set<LogVerbosity>(['off', 'error', 'warn', 'info', 'debug', 'trace']);

/** Connections are told, as by PgDog; the format is JSON where nothing is said. */
export function loggingConfig(keys: GeneralKeys, warn: (sentence: string) => void): LoggingConfig {
  return {
    connections: keys.log_connections ?? true,
    disconnections: keys.log_disconnections ?? true,
    format: keys.log_format === 'text' ? 'text' : 'json',
    level: levelOf(keys.log_level ?? 'info', warn),
  };
}

/** PgDog takes a list of directives, as `info,pgdog=debug`: those for a part of PgDog have nothing here that they could be about. */
function levelOf(written: string, warn: (sentence: string) => void): LogVerbosity {
  const words = written.toLowerCase().split(',');
  const level = words.find((word): word is LogVerbosity => LEVELS.has(word)) ?? 'info';
  if (words.length > 1 || words[0] !== level)
    warn(`"log_level": only one level for the whole program is implemented; it is "${level}"`);
  return level;
}

/**
 * What is told needs no password, so nobody beyond this machine is told without being asked to: an address that the files do not name
 * is the loopback address here, while clients are served at all addresses.
 */
export function monitoringConfig(keys: GeneralKeys, warn: (sentence: string) => void): MonitoringConfig {
  const namespace = keys.openmetrics_namespace ?? '';
  if (namespace.includes('.')) warn('"openmetrics_namespace": OpenMetrics knows no "." in names, it is written as "_"');
  return {
    host: keys.host ?? LOOPBACK,
    healthcheckPort: keys.healthcheck_port ?? null,
    openmetricsPort: keys.openmetrics_port ?? null,
    namespace: namespace.replaceAll('.', '_'),
  };
}
