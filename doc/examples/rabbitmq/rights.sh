# What may be declared, written to and read.
rabbitmqctl add_user vmip PASSWORD
rabbitmqctl set_permissions vmip \
    '^(nova|neutron|vmip.*|reply_.*)$' \
    '^(vmip.*|reply_.*|amq\.default)$' \
    '^(nova|neutron|vmip.*|reply_.*)$'
