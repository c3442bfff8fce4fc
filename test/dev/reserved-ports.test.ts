/** One task: a port that was given to one process is given to no other one as long as it lives, whether it listens or not. */
import { expect, test } from 'vitest';
import { reservePort } from '../../src/dev/reserved-ports.js';
import { freePort } from '../../src/dev/ports.js';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MODULE = fileURLToPath(new URL('../../dist/src/dev/reserved-ports.js', import.meta.url));

/** Whether another process, which ends then, may have it. */
function elsewhere(port: number): string {
  const program = `import(${JSON.stringify(MODULE)}).then((m) => console.log(m.reservePort(${port.toString()})))`;
  return spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' }).stdout.trim();
}

test('nobody else has it while this process lives, and who ends gives it back', async () => {
  const port = await freePort();
  expect(reservePort(port)).toBe(false);
  expect(elsewhere(port)).toBe('false');
  // Out of the range of those that are given away.
  const other = 1;
  expect(elsewhere(other)).toBe('true');
  expect(elsewhere(other)).toBe('true');
});

test('what a killed process has left is given away again', () => {
  const program = `import(${JSON.stringify(MODULE)}).then((m) => { m.reservePort(2); process.kill(process.pid, 'SIGKILL'); })`;
  spawnSync(process.execPath, ['-e', program]);
  expect(elsewhere(2)).toBe('true');
});
