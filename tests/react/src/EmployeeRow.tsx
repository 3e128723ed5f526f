import { useHikvisionSync } from '../../../receiver/react/useHikvisionSync'

export interface Employee {
  id: string
  nume: string
  prenume: string
}

export interface EmployeeRowProps {
  employee: Employee
  baseUrl: string
  getAccessToken: () => string
}

export function EmployeeRow({ employee, baseUrl, getAccessToken }: EmployeeRowProps) {
  const sync = useHikvisionSync({ baseUrl, getAccessToken })
  const running = sync.state === 'running'
  return (
    <li>
      <span>
        {employee.nume} {employee.prenume}
      </span>
      <output>{sync.state === 'done' && `${sync.summary.success} din ${sync.total}`}</output>
      <button type="button" disabled={running} onClick={() => sync.syncEmployee(employee.id)}>
        Sincronizează pe toate dispozitivele
      </button>
      <button type="button" disabled={running} onClick={() => sync.syncPhoto(employee.id)}>
        Sincronizează foto
      </button>
      {sync.problem && <p role="alert">{sync.problem.detail}</p>}
    </li>
  )
}
