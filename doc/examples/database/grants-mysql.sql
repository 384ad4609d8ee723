-- for "vmip-manage db upgrade" only
CREATE USER 'vmip_schema'@'%' IDENTIFIED BY 'SCHEMA_PASSWORD';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES
    ON vmip.* TO 'vmip_schema'@'%';
-- for everything else
CREATE USER 'vmip_run'@'%' IDENTIFIED BY 'RUN_PASSWORD';
GRANT SELECT, INSERT, UPDATE, DELETE ON vmip.* TO 'vmip_run'@'%';
